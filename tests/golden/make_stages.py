# SPDX-License-Identifier: Apache-2.0
"""Writes stages/*.npy: every stage of the demo checkpoint, and of tiny random networks, in float32 by diffusers and
transformers. Needs torch, diffusers, transformers (versions are written to stages/versions.json).

usage: make_stages.py       (from the project's root; a minute on two cores)

demo-*: the demo checkpoint on a 96x64 crop. flux-a, flux-b, vae-a: random networks of other shapes (no guidance
embedding, other head counts and widths, context of another size, two blocks a level), saved as checkpoints beside.
"""
import json
import os

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, 'stages')
DEMO = os.path.join(HERE, '../../examples/demo-model')
PROMPT = 'Make it look like night time, then add a red frame.'


def save(name, value):
    np.save(f'{OUT}/{name}.npy', np.ascontiguousarray(np.asarray(value)))


def ids(text, target, context):
    def grid(axis, size):
        h, w = size
        out = torch.zeros(h, w, 3)
        out[..., 0], out[..., 1], out[..., 2] = axis, torch.arange(h)[:, None], torch.arange(w)[None]
        return out.reshape(-1, 3)
    return torch.zeros(text, 3), torch.cat([grid(0, target)] + ([grid(1, context)] if context else []))


def flux_case(name, model, text, target, context, t, guidance, seed):
    """One forward on random inputs; t and guidance as the pipeline passes them (t = sigma)."""
    g = torch.Generator().manual_seed(seed)
    c = model.config
    rows = target[0] * target[1] + (context[0] * context[1] if context else 0)
    tokens = torch.randn(1, rows, c.in_channels, generator=g)
    states = torch.randn(1, text, c.joint_attention_dim, generator=g)
    pooled = torch.randn(1, c.pooled_projection_dim, generator=g)
    txt_ids, img_ids = ids(text, target, context)
    out = model(hidden_states=tokens, encoder_hidden_states=states, pooled_projections=pooled,
                timestep=torch.tensor([t]), guidance=torch.tensor([guidance]) if c.guidance_embeds else None,
                txt_ids=txt_ids, img_ids=img_ids, return_dict=False)[0]
    for key, value in {'tokens': tokens[0], 'states': states[0], 'pooled': pooled, 'velocity': out[0]}.items():
        save(f'{name}-{key}', value)


def randomise(model, seed, scale):
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith('norm_q.weight') or name.endswith('norm_k.weight') or 'norm' in name and name.endswith('weight') and p.dim() == 1:
            p.data = 1 + 0.2 * torch.randn(p.shape, generator=g)
        elif p.dim() == 1:
            p.data = 0.1 * torch.randn(p.shape, generator=g)
        else:
            p.data = scale * torch.randn(p.shape, generator=g) / p[0].numel() ** 0.5
    return model.eval()


@torch.no_grad()
def main():
    os.makedirs(OUT, exist_ok=True)
    torch.manual_seed(0)
    pipe = FluxKontextPipeline.from_pretrained(f'{DEMO}/checkpoint', torch_dtype=torch.float32)
    options = {'padding': 'max_length', 'truncation': True, 'return_tensors': 'pt'}
    clip_ids = pipe.tokenizer(PROMPT, max_length=77, **options).input_ids
    t5_ids = pipe.tokenizer_2(PROMPT, max_length=64, **options).input_ids
    save('demo-clip-ids', clip_ids[0].int())
    save('demo-t5-ids', t5_ids[0].int())
    save('demo-pooled', pipe.text_encoder(clip_ids).pooler_output)
    save('demo-states', pipe.text_encoder_2(t5_ids)[0][0])
    image = Image.open(f'{DEMO}/photos/coffee_256.png').convert('RGB').crop((80, 60, 176, 124))
    pixels = np.asarray(image)
    save('demo-pixels', pixels)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    moments = pipe.vae.encode(x).latent_dist.parameters
    save('demo-moments', moments[0])
    latent = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(5))
    save('demo-latent', latent[0])
    save('demo-decoded', pipe.vae.decode(latent).sample[0])
    flux_case('demo-flux', pipe.transformer, 64, (4, 6), (4, 6), 0.75, 2.5, 1)
    # Tiling: a 96x64 image with tiles of 32 pixels, the sizes of the class scaled down.
    vae = pipe.vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 4
    vae.enable_tiling()
    save('demo-tiled-moments', vae.encode(x).latent_dist.parameters[0])
    save('demo-tiled-decoded', vae.decode(latent).sample[0])

    a = FluxTransformer2DModel(in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16,
                               num_attention_heads=3, joint_attention_dim=40, pooled_projection_dim=24,
                               guidance_embeds=False, axes_dims_rope=(4, 6, 6))
    b = FluxTransformer2DModel(in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=32,
                               num_attention_heads=2, joint_attention_dim=24, pooled_projection_dim=32,
                               guidance_embeds=True, axes_dims_rope=(8, 12, 12))
    for name, model, seed in (('flux-a', a, 11), ('flux-b', b, 12)):
        randomise(model, seed, 0.7).save_pretrained(f'{OUT}/{name}')
    flux_case('flux-a', a, 7, (3, 5), (5, 4), 0.988408625, 1.0, 2)
    flux_case('flux-b', b, 9, (6, 2), None, 0.104720898, 3.5, 3)

    v = AutoencoderKL(down_block_types=['DownEncoderBlock2D'] * 4, up_block_types=['UpDecoderBlock2D'] * 4,
                      block_out_channels=(8, 8, 16, 24), layers_per_block=2, latent_channels=4, norm_num_groups=4,
                      sample_size=64, use_quant_conv=False, use_post_quant_conv=False)
    randomise(v, 13, 1.0).save_pretrained(f'{OUT}/vae-a')
    g = torch.Generator().manual_seed(4)
    x = torch.rand(1, 3, 40, 56, generator=g) * 2 - 1
    latent = torch.randn(1, 4, 5, 7, generator=g)
    save('vae-a-image', x[0])
    save('vae-a-moments', v.encode(x).latent_dist.parameters[0])
    save('vae-a-latent', latent[0])
    save('vae-a-decoded', v.decode(latent).sample[0])
    with open(f'{OUT}/versions.json', 'w') as f:
        json.dump({m.__name__: m.__version__ for m in (torch, diffusers, transformers, np)}, f, indent=1)


main()
