# SPDX-License-Identifier: Apache-2.0
"""Writes edits/*.png: whole edits of the demo checkpoint by diffusers' FluxKontextPipeline in float32 on the CPU, 28
steps, guidance 2.5. Named and vague prompts on 256x256 and 304x208; with true CFG once; one local edit of the judge's checkpoint.

usage: make_edits.py        (from the project's root; a minute on two cores)
"""
import os
import sys

import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, '../../examples/demo-model')
OUT = os.path.join(HERE, 'edits')
sys.path.insert(0, DEMO)
import reference  # noqa: E402

# (prompt, seed); "add a shape" and the empty prompt are vague: only they show a wrong noise bit.
CASES = [('make it black and white', 0), ('make it night', 1), ('turn it upside down', 2), ('add a shape', 3), ('', 4)]


@torch.no_grad()
def main():
    os.makedirs(OUT, exist_ok=True)
    pipe = reference.load(f'{DEMO}/checkpoint')
    square = Image.open(f'{DEMO}/photos/coffee_256.png').convert('RGB')
    wide = Image.open(f'{DEMO}/photos/rocket.png').convert('RGB').resize((304, 208), Image.LANCZOS)
    wide.save(f'{OUT}/rocket_304x208.png')
    for i, (prompt, seed) in enumerate(CASES):
        for name, image in (('square', square), ('wide', wide)):
            picture, _ = reference.run(pipe, image, prompt, seed=seed)
            picture.save(f'{OUT}/{name}-{i}.png')
    result = pipe(image=square, prompt='make it night', negative_prompt='make it brighter', true_cfg_scale=2.0,
                  height=256, width=256, max_area=256 * 256, _auto_resize=False, max_sequence_length=64,
                  guidance_scale=2.5, num_inference_steps=8, generator=torch.Generator('cpu').manual_seed(6)).images[0]
    result.save(f'{OUT}/cfg.png')
    judge = reference.load(f'{DEMO}/judge')
    image = Image.open(f'{HERE}/../quality/judge/crocodile-mushroom.jpg').convert('RGB')
    reference.run(judge, image, 'turn the mushroom purple', seed=7)[0].save(f'{OUT}/judge.png')


main()
