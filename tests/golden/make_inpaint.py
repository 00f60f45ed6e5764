# SPDX-License-Identifier: Apache-2.0
"""Writes inpaint/: edits of the demo checkpoint in float32 on the CPU by diffusers' FluxKontextInpaintPipeline, which
keeps what lies outside a mask and begins from the noised picture (strength), and by FluxKontextPipeline with true CFG
in a part of the steps.

usage: make_inpaint.py        (from anywhere; a minute on two cores)

source.png, mask.png: what goes in, 160x112; the mask's edges lie on no grid of the model. strength.png: everything
masked, strength 0.6. mask.png's results are those of mask-1.png (strength 1) and mask-7.png (strength 0.7). All
pictures are as decoded: nothing of the source is pasted back. range.png: true CFG from 0.25 to 0.75 of the steps.
"""
import os

import numpy as np
import torch
from diffusers import FluxKontextInpaintPipeline, FluxKontextPipeline
from PIL import Image, ImageDraw

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, '../../examples/demo-model')
OUT = os.path.join(HERE, 'inpaint')
SIZE = 160, 112


def inputs():
    source = Image.open(f'{DEMO}/photos/coffee_256.png').convert('RGB').crop((40, 70, 40 + SIZE[0], 70 + SIZE[1]))
    mask = Image.new('L', SIZE, 0)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((21, 13, 98, 90), fill=255)
    draw.rectangle((117, 50, 150, 101), fill=255)
    return source, mask


@torch.no_grad()
def main():
    os.makedirs(OUT, exist_ok=True)
    source, mask = inputs()
    source.save(f'{OUT}/source.png')
    mask.save(f'{OUT}/mask.png')
    pipe = FluxKontextInpaintPipeline.from_pretrained(f'{DEMO}/checkpoint', torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    def inpaint(name, where, strength):
        pipe(image=source, mask_image=where, prompt='invert the colors', strength=strength, num_inference_steps=8,
             guidance_scale=2.5, max_sequence_length=64, _auto_resize=False,
             generator=torch.Generator('cpu').manual_seed(5)).images[0].save(f'{OUT}/{name}.png')

    inpaint('strength', Image.new('L', SIZE, 255), 0.6)
    inpaint('mask-1', mask, 1.0)
    inpaint('mask-7', mask, 0.7)

    edit = FluxKontextPipeline(**pipe.components)
    edit.set_progress_bar_config(disable=True)
    steps, calls, positive = 8, [0], [None]

    def outside_of_range(module, args, kwargs, output):
        """The negative velocity is the positive one outside the range, so that guidance changes nothing."""
        call = calls[0]
        calls[0] += 1
        if call % 2 == 0:
            positive[0] = output[0].clone()
            return output
        i = call // 2
        off = i / steps < 0.25 or (i + 1) / steps > 0.75  # control_guidance_start and _end of diffusers' pipelines
        return (positive[0],) if off else output

    hook = edit.transformer.register_forward_hook(outside_of_range, with_kwargs=True)
    edit(image=source, prompt='make it night', negative_prompt='make it brighter', true_cfg_scale=2.0, height=SIZE[1],
         width=SIZE[0], max_area=SIZE[0] * SIZE[1], _auto_resize=False, max_sequence_length=64, guidance_scale=2.5,
         num_inference_steps=steps,
         generator=torch.Generator('cpu').manual_seed(6)).images[0].save(f'{OUT}/range.png')
    hook.remove()
    print(sorted(os.listdir(OUT)), np.asarray(source).mean())


main()
