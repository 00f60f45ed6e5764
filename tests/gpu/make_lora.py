# SPDX-License-Identifier: Apache-2.0
"""Writes a random LoRA for every linear layer of the blocks of a checkpoint's transformer, in diffusers' names, bfloat16.

usage: make_lora.py CHECKPOINT OUT.safetensors [RANK]        RANK: default 32
"""
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def shapes(folder):
    """(name, rows, columns) of the blocks' matrices, from the files' headers."""
    for path in sorted(folder.glob('*.safetensors')):
        with safe_open(path, 'pt') as file:
            for name in file.keys():
                shape = file.get_slice(name).get_shape()
                if 'transformer_blocks' in name and len(shape) == 2: yield name[:-len('.weight')], *shape


def main():
    rank = int(sys.argv[3]) if len(sys.argv) > 3 else 32
    generator, out = torch.Generator().manual_seed(5), {}
    for name, rows, columns in shapes(Path(sys.argv[1]) / 'transformer'):
        out[f'transformer.{name}.lora_A.weight'] = torch.randn(rank, columns, generator=generator).mul_(columns ** -.5).bfloat16()
        out[f'transformer.{name}.lora_B.weight'] = torch.randn(rows, rank, generator=generator).mul_(.1 * rank ** -.5).bfloat16()
    save_file(out, sys.argv[2])
    print(json.dumps({'layers': len(out) // 2, 'bytes': sum(t.numel() * 2 for t in out.values())}))


main()
