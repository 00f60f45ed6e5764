"""Make the judge's cases: 24 held-out photographs, each with a local edit, a global edit and an open prompt.

usage: make_judge_cases.py HELD_OUT FOLDER

HELD_OUT has 24 photographs of 256x256 (collect_judge_photos.py, and ../photos/*_256.png). FOLDER gets them, the inputs
with an object put in, and cases.json for fluxkontext-quality. Objects to be removed, recoloured or replaced grow from case
to case, so that shares of the edited area are spread out.
"""
import glob
import json
import os
import shutil
import sys

import numpy as np
import torch
from PIL import Image

import edits
import judge_edits

# (kind, object, colour, radius in parts of the side, prompt); 'add' and the regions take the photograph as it is.
LOCAL = [
    ('add', None, None, 0, 'add a small red ball on the left'), ('remove', 'star', 'yellow', .16, 'remove the yellow star'),
    ('recolor', 'ball', 'green', .2, 'make the ball blue'), ('add', None, None, 0, 'put a big balloon in the center'),
    ('replace', 'box', 'purple', .24, 'replace the box with a flower'), ('water', None, None, 0, 'put a lake at the bottom'),
    ('remove', 'cup', 'white', .26, 'take the cup away'), ('recolor', 'mushroom', 'red', .3, 'turn the mushroom purple'),
    ('add', None, None, 0, 'add a tree'), ('remove', 'house', 'orange', .36, 'make the house disappear'),
    ('sunset sky', None, None, 0, 'replace the sky with a sunset'), ('recolor', 'heart', 'pink', .34, 'paint the heart yellow'),
    ('add', None, None, 0, 'add a huge star'), ('remove', 'fish', 'blue', .3, 'delete the fish'),
    ('replace', 'moon', 'cyan', .34, 'swap the moon for an orange cone'), ('cloudy sky', None, None, 0, 'add clouds'),
    ('recolor', 'cone', 'orange', .4, 'the cone should be green'), ('remove', 'ball', 'black', .44, 'erase the black ball'),
    ('add', None, None, 0, 'put a large purple box at the bottom'), ('snow ground', None, None, 0, 'cover the ground with snow'),
    ('recolor', 'can', 'gray', .26, 'change the color of the can to red'), ('add', None, None, 0, 'add a fish in the top right'),
    ('replace', 'flower', 'yellow', .42, 'turn the flower into a house'), ('sand', None, None, 0, 'cover the ground with sand'),
]
GLOBAL = ['make it snow', 'make it a starry night', 'add sunset light', 'make it rain', 'add rays of light', 'add a lot of fog',
          'give it autumn colors', 'make it look like an old film', 'add bokeh lights', 'add a soft glow', 'make it neon',
          'put it under water', 'turn it into winter', 'turn it into a starry night', 'make it golden hour', 'let it rain',
          'let the sun shine in', 'make it hazy', 'make it autumn', 'give it film grain', 'make it sparkle', 'make it dreamy',
          'give it neon colors', 'make it look underwater']
OPEN = ['make it more beautiful', 'surprise me', 'be creative', 'change the mood', 'make it magical', 'do something creative']


def main(held_out, folder):
    os.makedirs(folder, exist_ok=True)
    paths = sorted(glob.glob(f'{held_out}/*.jpg') + glob.glob(f'{held_out}/*.png'))
    assert len(paths) == len(LOCAL) == len(GLOBAL), (len(paths), len(LOCAL), len(GLOBAL))
    maker, rows = judge_edits.JudgeMaker(256, 256, 'cpu', None, 24), {'local': [], 'global': [], 'open': []}
    for k, path in enumerate(paths):
        name = os.path.splitext(os.path.basename(path))[0].removesuffix('_256')
        plain = os.path.basename(path)
        shutil.copy(path, folder)
        kind, thing, color, radius, prompt = LOCAL[k]
        source = plain
        if thing:
            one = maker.object(1, torch.tensor([judge_edits.OBJECT_NAMES.index(thing)]), torch.tensor([radius]),
                               torch.tensor([edits.COLOR_NAMES.index(color)]))
            x = torch.from_numpy(np.array(Image.open(path).convert('RGB'))).permute(2, 0, 1)[None].float() / 255
            source = f'{name}-{thing}.jpg'
            pixels = (maker.put(x, one)[0].permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(f'{folder}/{source}', quality=93, subsampling=0)
        for tier, what, words, input_ in (('local', kind, prompt, source), ('global', 'global', GLOBAL[k], plain),
                                          ('open', 'open', OPEN[k % len(OPEN)], plain)):
            rows[tier].append({'tier': tier, 'id': f'{tier}-{name}', 'kind': what, 'prompt': words, 'seed': k, 'input': input_})
    lines = ',\n'.join(json.dumps(row) for tier in rows.values() for row in tier)
    with open(f'{folder}/cases.json', 'w') as f:
        f.write(f'[\n{lines}\n]\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
