#!/usr/bin/env python3
"""types.txt: blocks of numbers as files have them, and what they are in float32.

usage: make_types.py OUT     needs gguf 0.19 and, for the tensors with scales beside them, comfy-kitchen 0.2.40 and torch

block NAME BYTES NUMBERS                        one block; by the gguf package
scaled FORMAT ROWS COLS CODES SCALES ALL HASH   a matrix; ALL: the scale of all numbers; HASH: SHA-256 of the numbers
                                                by comfy-kitchen, float32
All as hexadecimal bytes, little-endian.
"""
import hashlib
import sys

import gguf
import numpy as np
import torch
from comfy_kitchen.backends.eager import quantization as q
from gguf import GGMLQuantizationType as Type

TYPES = 'Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS'.split()
BLOCKS = 6


def blocks(out, rng):
    for name in TYPES:
        values, size = gguf.GGML_QUANT_SIZES[Type[name]]
        for i in range(BLOCKS):
            block = rng.integers(0, 256, size, dtype=np.uint8)
            # Halves that are finite: the scales' places differ by type, so every pair may be one.
            block[1::2] = np.where((block[1::2] & 0x7c) == 0x7c, block[1::2] & 0x83 | 0x20, block[1::2])
            block[0::2] = np.where((block[0::2] & 0x7c) == 0x7c, block[0::2] & 0x83 | 0x20, block[0::2])
            numbers = gguf.quants.dequantize(block.reshape(1, -1), Type[name]).astype('<f4')
            assert numbers.size == values and np.isfinite(numbers).all()
            out.write(f'block {name} {block.tobytes().hex()} {numbers.tobytes().hex()}\n')


def line(out, name, codes, scales, all_, numbers):
    flat = lambda t: t.contiguous().view(torch.uint8).numpy().tobytes().hex()
    out.write(f'scaled {name} {numbers.shape[0]} {numbers.shape[1]} {flat(codes)} {flat(scales)} {flat(all_)} '
              f'{hashlib.sha256(bytes.fromhex(flat(numbers))).hexdigest()}\n')


def scaled(out):
    torch.manual_seed(5)
    for rows, cols in ((160, 64), (130, 160), (3, 32)):
        x = torch.randn(rows, cols) * torch.exp(torch.randn(rows, 1) * 2)
        codes, scales = q.quantize_mxfp8(x, pad_32x=True) if rows % 32 else q.quantize_mxfp8(x)
        line(out, 'mxfp8', codes[:rows], scales, torch.ones(1), q.dequantize_mxfp8(codes, scales, torch.float32)[:rows])
        tensor = x.abs().max() / (448 * 6)
        codes, scales = q.quantize_nvfp4(x, tensor, pad_16x=True) if rows % 16 else q.quantize_nvfp4(x, tensor)
        line(out, 'nvfp4', codes[:rows], scales, tensor.reshape(1),
             q.dequantize_nvfp4(codes, tensor, scales, torch.float32)[:rows])


with open(sys.argv[1], 'w') as out:
    blocks(out, np.random.default_rng(7))
    scaled(out)
