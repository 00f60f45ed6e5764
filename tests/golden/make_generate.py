# SPDX-License-Identifier: Apache-2.0
"""Writes generate/: pictures made from text by diffusers' FluxPipeline in float32, and the tiny random transformer of a
schnell-like model (no guidance embedding, no dynamic shift), whose other parts are the demo checkpoint's.

usage: make_generate.py       (from anywhere; seconds)

schnell.png: that model, 4 steps. dev.png: the demo checkpoint's transformer, with guidance and dynamic shift, 6 steps.
"""
import os

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, 'generate')
DEMO = os.path.join(HERE, '../../examples/demo-model/checkpoint')
PROMPT, WIDTH, HEIGHT = 'a red square on a table', 96, 64


def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if 'norm_' in name and p.dim() == 1 and 'linear' not in name:
            p.data = 1 + 0.2 * torch.randn(p.shape, generator=g)
        else:
            p.data = 0.7 * torch.randn(p.shape, generator=g) / (10 if p.dim() == 1 else p[0].numel() ** 0.5)
    return model.to(torch.bfloat16).eval()


def picture(pipe, name, steps, **options):
    image = pipe(PROMPT, width=WIDTH, height=HEIGHT, num_inference_steps=steps, max_sequence_length=64,
                 generator=torch.Generator('cpu').manual_seed(7), **options).images[0]
    image.save(f'{OUT}/{name}.png')
    print(name, image.size, image.resize((1, 1)).getpixel((0, 0)))


def main():
    os.makedirs(OUT, exist_ok=True)
    tiny = randomise(FluxTransformer2DModel(in_channels=64, num_layers=1, num_single_layers=2, attention_head_dim=16,
                                            num_attention_heads=2, joint_attention_dim=256, pooled_projection_dim=128,
                                            guidance_embeds=False, axes_dims_rope=(4, 6, 6)), 3)
    tiny.save_pretrained(f'{OUT}/schnell/transformer')
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False, base_image_seq_len=256,
                                                max_image_seq_len=4096, base_shift=0.5, max_shift=1.15)
    scheduler.save_pretrained(f'{OUT}/schnell/scheduler')
    pipe = FluxPipeline.from_pretrained(DEMO, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture(pipe, 'dev', 6, guidance_scale=3.5)
    pipe = FluxPipeline.from_pretrained(DEMO, torch_dtype=torch.float32, transformer=tiny.float(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    picture(pipe, 'schnell', 4, guidance_scale=0.0)


main()
