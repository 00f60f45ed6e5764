# SPDX-License-Identifier: Apache-2.0
"""Writes latent.txt: rotary tables, sinusoids and model times of diffusers, for tests/test-latent.c.

rope lines: text, target height and width, context height and width (in tokens), axes, theta, row, channel pair, cosine
and sine as float32 words. sinusoid lines: t, then value (index) pairs. seen lines: timestep, bf16 flag, model time.

Run: python make_latent.py > latent.txt   (torch, diffusers)
"""
import numpy as np
import torch
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from diffusers.pipelines.flux.pipeline_flux_kontext import FluxKontextPipeline

prepare = FluxKontextPipeline._prepare_latent_image_ids
rng = np.random.default_rng(5)


def word(x):
    return f"{np.float32(x).view(np.uint32):08x}"


GRIDS = (
    (512, 64, 64, 64, 64, (16, 56, 56), 10000),
    (64, 13, 19, 7, 16, (16, 56, 56), 10000),
    (3, 5, 4, 0, 0, (4, 6, 8), 10000),
    (8, 98, 42, 42, 98, (8, 12, 12), 500),
)

for text, h, w, ch, cw, axes, theta in GRIDS:
    ids = [torch.zeros(text, 3), prepare(1, h, w, "cpu", torch.float32)]
    if ch:
        context = prepare(1, ch, cw, "cpu", torch.float32)
        context[..., 0] = 1
        ids.append(context)
    cos, sin = FluxPosEmbed(theta, list(axes))(torch.cat(ids))
    rows = [0, text, len(cos) - 1, *rng.integers(0, len(cos), 60).tolist()]
    for row in rows:
        pair = int(rng.integers(0, sum(axes) // 2))
        assert cos[row, 2 * pair] == cos[row, 2 * pair + 1]
        print("rope", text, h, w, ch, cw, *axes, theta, row, pair, word(cos[row, 2 * pair]), word(sin[row, 2 * pair]))

for t in (0.0, 1.0, 104.5, 274.827988, 988.0, 1000.0, 2496.0, 3504.0):
    values = get_timestep_embedding(torch.tensor([t]), 256, flip_sin_to_cos=True, downscale_freq_shift=0)[0].tolist()
    for i in (0, 1, 2, 12, 32, 64, 127, 128, 129, 130, 200, 255):
        print("sinusoid", t, i, f"{values[i]:.9g}")

for t in [1000.0, 988.408625, 104.720898, *np.round(rng.uniform(1, 1000, 60), 4).tolist()]:
    for flag, dtype in ((0, torch.float32), (1, torch.bfloat16)):
        seen = (torch.tensor([t], dtype=torch.float32).to(dtype) / 1000).to(dtype) * 1000
        print("seen", f"{t:.9g}", flag, f"{seen.float().item():.9g}")
