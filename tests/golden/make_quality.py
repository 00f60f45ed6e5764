# SPDX-License-Identifier: Apache-2.0
"""Writes tests/quality/cases.json with its pictures: edits of held-out photographs and drawings by their right answers
(the demo checkpoint's own edits.py) and what its autoencoder alone makes of these, as diffusers computes it in float32.
Also golden/quality/: two pictures and their PSNR, SSIM (scikit-image) and gradient PSNR (numpy), for test-quality.c.

usage: make_quality.py        (from the project's root; scikit-image on PYTHONPATH; two minutes on two cores)
"""
import json
import math
import os
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageFilter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, '../../examples/demo-model')
OUT = os.path.join(HERE, '../quality')
SIZE = 256
sys.path.insert(0, f'{DEMO}/train')
import edits  # noqa: E402

# Pictures that the checkpoint has never seen. Those of the demo are used where they lie.
DEMO_PICTURES = {'coffee': 'coffee_256.png', 'rocket': 'rocket_256.png', 'shapes': 'shapes_256.png'}
CROPS = {'cup': ('coffee.png', (300, 20, 300)), 'tower': ('rocket.png', (330, 60, 280))}  # left, top, side
PHOTO_KINDS = {'night': 'make it night', 'mirror': 'mirror it', 'frame': 'add a red frame', 'thermal': 'make it look like a thermal camera',
               'sketch': 'turn it into a pencil sketch', 'painting': 'turn it into an oil painting'}
SHAPE_KINDS = ['recolor', 'add']
PER_KIND = 6
VAGUE = ['add a shape', 'change the picture', 'make it better', 'do something']
OPEN_SEEDS = 4


def tensor(image):
    return torch.from_numpy(np.array(image.convert('RGB'))).permute(2, 0, 1)[None].float() / 255


def save(x, name):
    pixels = (x[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(f'{OUT}/{name}', optimize=True)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


class HeldOut:
    """Backgrounds for scenes of shapes, in the place of edits.Photos."""

    def __init__(self, images):
        self.images = images

    def sample(self, count, generator):
        return self.images[torch.randint(0, len(self.images), (count,), generator=generator)]


def pictures():
    """name: (path from OUT, pixels)."""
    found = {name: (f'../../examples/demo-model/photos/{file}', tensor(Image.open(f'{DEMO}/photos/{file}')))
             for name, file in DEMO_PICTURES.items()}
    for name, (file, (left, top, side)) in CROPS.items():
        crop = Image.open(f'{DEMO}/photos/{file}').convert('RGB').resize((SIZE, SIZE), Image.LANCZOS, box=(left, top, left + side, top + side))
        found[name] = f'{name}.png', save(tensor(crop), f'{name}.png')
    generator = torch.Generator().manual_seed(5)
    found['texture'] = 'texture.png', save(edits.textures(1, SIZE, SIZE, 'cpu', generator), 'texture.png')
    return found


def ceiling(vae, target):
    """dB of the autoencoder alone against the right answer."""
    again = vae.decode(vae.encode(target * 2 - 1).latent_dist.mode()).sample.clamp(-1, 1) / 2 + .5
    return round(-10 * math.log10((again - target).pow(2).mean().item()), 3)


def named(vae, found, maker):
    """Kinds change fastest, so that the first 8 are one of each, on different pictures."""
    cases, scenes = [], {kind: [maker.make(1, kind) for _ in range(PER_KIND)] for kind in SHAPE_KINDS}
    kinds = list(PHOTO_KINDS) + SHAPE_KINDS
    for i in range(PER_KIND * len(kinds)):
        kind, turn = kinds[i % len(kinds)], i // len(kinds)
        if kind in PHOTO_KINDS:
            name = list(found)[(turn + i % len(kinds)) % len(found)]
            path, source = found[name]
            prompt, target = PHOTO_KINDS[kind], maker.apply(source, kind, torch.tensor([0]))
        else:
            source, (prompt,), target = scenes[kind][turn]
            name, path = str(turn), f'{kind}-{turn}.png'
            save(source, path)
        answer = f'{kind}-{name}-right.png'
        cases.append({'tier': 'named', 'id': f'{kind}-{name}', 'kind': kind, 'prompt': prompt, 'seed': turn, 'input': path, 'target': answer,
                      'ceiling': ceiling(vae, save(target, answer))})
    return cases


def without_answer(found):
    names = ['coffee', 'tower', 'rocket', 'cup']
    cases = []
    for seed in range(len(VAGUE)):
        for i, name in enumerate(names):
            k = (i + seed) % len(VAGUE)
            cases.append({'tier': 'vague', 'id': f'vague-{name}-{k}', 'kind': VAGUE[k], 'prompt': VAGUE[k], 'seed': seed, 'input': found[name][0]})
    for seed in range(OPEN_SEEDS):
        for name in names:
            cases.append({'tier': 'open', 'id': f'open-{name}-{seed}', 'kind': 'open', 'prompt': '', 'seed': seed, 'input': found[name][0]})
    return cases


def metrics():
    folder = f'{HERE}/quality'
    os.makedirs(folder, exist_ok=True)
    image = Image.open(f'{DEMO}/photos/coffee_256.png').convert('RGB').crop((60, 40, 131, 93))
    noise = np.random.default_rng(3).normal(0, 6, (53, 71, 3))
    a, others = np.array(image), {
        'blur': np.array(image.filter(ImageFilter.GaussianBlur(1.2))),
        'noise': (np.array(image) + noise).clip(0, 255).round().astype(np.uint8),
        'shift': np.roll(np.array(image), 1, 1),
        'one': np.where(np.arange(53 * 71 * 3).reshape(53, 71, 3) == 5000, 255 - np.array(image), np.array(image)).astype(np.uint8)}
    Image.fromarray(a).save(f'{folder}/a.png')
    lines = ['# picture PSNR SSIM gradient-PSNR, against a.png']
    for name, b in others.items():
        Image.fromarray(b).save(f'{folder}/{name}.png')
        x, y = a.astype(np.float64), b.astype(np.float64)
        error = np.concatenate([(np.diff(x, axis=k) - np.diff(y, axis=k)).ravel() for k in (0, 1)])
        ssim = structural_similarity(a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        lines.append(f'{name} {peak_signal_noise_ratio(a, b):.9f} {ssim:.9f} {10 * math.log10(255 ** 2 / (error ** 2).mean()):.9f}')
    with open(f'{folder}/metrics.txt', 'w') as f:
        f.write('\n'.join(lines) + '\n')


@torch.no_grad()
def main():
    os.makedirs(OUT, exist_ok=True)
    vae = AutoencoderKL.from_pretrained(f'{DEMO}/checkpoint/vae', torch_dtype=torch.float32).eval()
    found = pictures()
    photos = torch.cat([found[name][1] for name in ('coffee', 'tower', 'rocket', 'cup')])
    maker = edits.EditMaker(SIZE, SIZE, 'cpu', HeldOut(photos), 11)
    cases = named(vae, found, maker) + without_answer(found)
    with open(f'{OUT}/cases.json', 'w') as f:
        f.write('[\n' + ',\n'.join(json.dumps(case) for case in cases) + '\n]\n')
    metrics()


main()
