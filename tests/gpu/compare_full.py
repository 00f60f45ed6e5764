# SPDX-License-Identifier: Apache-2.0
"""Compares the stages of one edit with diffusers' and transformers' modules on the edit's own inputs, in float32 and in
bfloat16: our bfloat16 error may be at most 1.1 times theirs.

usage: compare_full.py CHECKPOINT DUMPS PROMPT [--guidance 2.5] [--text-length 512] [--sigma-tokens N]

DUMPS is the folder that FK_DUMP named when the edit ran (NNNN-name.npy). Prints one line a stage; exit status 1 if one
is over its limit. GPU with 60 GB; the modules run one after the other.
"""
import argparse
import glob
import os
import sys

import numpy as np
import torch

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def dump(folder, name, index=0):
    files = sorted(glob.glob(os.path.join(folder, f'[0-9]*-{name}.npy')))
    return torch.from_numpy(np.load(files[index]))


def error(a, b):
    a, b = a.double().cpu(), b.double().cpu()
    return ((a - b).norm() / b.norm()).item()


class Report:
    def __init__(self):
        self.bad = 0

    def line(self, stage, ours, exact, half):
        mine, theirs = error(ours, exact), error(half, exact)
        ok = mine <= 1.1 * theirs
        self.bad += not ok
        word = 'ok  ' if ok else 'OVER'
        print(f'{word} {stage:12s} ours {mine:.3e}  diffusers bf16 {theirs:.3e}  ratio {mine / theirs:.3f}', flush=True)


def both(load, run):
    """(float32 result, bfloat16 result); one module at a time in memory."""
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        module = load(dtype)
        with torch.no_grad():
            results.append(run(module, dtype).float().cpu())
        del module
        torch.cuda.empty_cache()
    return results


def text(a, report):
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel
    encoders = (('pooled', 'text_encoder', 'tokenizer', CLIPTextModel, 77),
                ('text', 'text_encoder_2', 'tokenizer_2', T5EncoderModel, a.text_length))
    for name, folder, tokenizer, cls, length in encoders:
        tok = AutoTokenizer.from_pretrained(os.path.join(a.checkpoint, tokenizer))
        ids = tok(a.prompt, max_length=length, padding='max_length', truncation=True).input_ids
        ids = torch.tensor(ids)[None].to(DEVICE)

        def run(module, _):
            out = module(ids)
            return out.pooler_output if name == 'pooled' else out[0][0]
        path = os.path.join(a.checkpoint, folder)
        exact, half = both(lambda d: cls.from_pretrained(path, dtype=d).to(DEVICE).eval(), run)
        report.line(name, dump(a.dumps, name), exact, half)


def vae(a, report):
    from diffusers import AutoencoderKL
    load = lambda d: AutoencoderKL.from_pretrained(os.path.join(a.checkpoint, 'vae'), torch_dtype=d).to(DEVICE).eval()
    image = dump(a.dumps, 'input').permute(2, 0, 1)[None]

    def encode(module, dtype):
        z = module.encode(image.to(DEVICE, dtype)).latent_dist.mode()
        z = (z - module.config.shift_factor) * module.config.scaling_factor
        c, h, w = z.shape[1:]
        return z[0].view(c, h // 2, 2, w // 2, 2).permute(1, 3, 0, 2, 4).reshape(-1, 4 * c)
    exact, half = both(load, encode)
    report.line('vae encode', dump(a.dumps, 'context'), exact, half)
    latent = dump(a.dumps, 'final_latents').permute(2, 0, 1)[None]
    exact, half = both(load, lambda m, d: m.decode(latent.to(DEVICE, d)).sample[0].permute(1, 2, 0))
    report.line('vae decode', dump(a.dumps, 'decoded'), exact, half)


def transformer(a, report):
    from diffusers import FluxTransformer2DModel
    load = lambda d: FluxTransformer2DModel.from_pretrained(os.path.join(a.checkpoint, 'transformer'),
                                                            torch_dtype=d).to(DEVICE).eval()
    context, noise = dump(a.dumps, 'context'), dump(a.dumps, 'noise')
    h, w, _ = dump(a.dumps, 'input').shape
    grid = torch.zeros(h // 16, w // 16, 3)
    grid[..., 1], grid[..., 2] = torch.arange(h // 16)[:, None], torch.arange(w // 16)[None]
    other = grid.clone()
    other[..., 0] = 1
    ids = torch.cat([grid.reshape(-1, 3), other.reshape(-1, 3)])
    states, pooled = dump(a.dumps, 'text'), dump(a.dumps, 'pooled')

    def run(module, dtype):
        tokens = torch.cat([noise.bfloat16().float(), context])[None]
        out = module(hidden_states=tokens.to(DEVICE, dtype), encoder_hidden_states=states[None].to(DEVICE, dtype),
                     pooled_projections=pooled.view(1, -1).to(DEVICE, dtype),
                     timestep=torch.ones(1, device=DEVICE, dtype=dtype),
                     guidance=torch.full([1], a.guidance, device=DEVICE),
                     txt_ids=torch.zeros(states.shape[0], 3, device=DEVICE), img_ids=ids.to(DEVICE),
                     return_dict=False)[0]
        return out[0, :noise.shape[0]]
    exact, half = both(load, run)
    report.line('velocity', dump(a.dumps, 'velocity'), exact, half)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('checkpoint')
    parser.add_argument('dumps')
    parser.add_argument('prompt')
    parser.add_argument('--guidance', type=float, default=2.5)
    parser.add_argument('--text-length', type=int, default=512)
    parser.add_argument('--stages', default='text,vae,transformer')
    a = parser.parse_args()
    report = Report()
    for stage in a.stages.split(','):
        globals()[stage](a, report)
    sys.exit(report.bad > 0)


if __name__ == '__main__':
    main()
