#!/usr/bin/env python3
"""The demo checkpoint's transformer in the forms of files that people have, and settings for fluxkontext-quality.

usage: make_forms.py CHECKPOINT OUT      needs numpy, torch, safetensors and gguf

OUT gets a file for each form, settings.txt, which compares them with the checkpoint in bfloat16, and what each form
makes of the weights: dB of signal against error over all quantised numbers, of blocks by the gguf package's own reader.
As makers of such files do it, matrices of the blocks are quantised and the rest stays as it is. The gguf package cannot
write K blocks: here their scales follow from the least and the largest number, without a search, so that llama.cpp's
files are a little better than these.
"""
import json
import math
import os
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])
FP8 = {'fp8-scaled': 'scale_weight', 'fp8-weight-scale': 'weight_scale'}
BLOCKS = ('Q8_0', 'Q5_K', 'Q4_K', 'Q4_0')


def quantised(name, t):
    return t.dim() == 2 and name.startswith(('transformer_blocks', 'single_transformer_blocks'))


# ---- GGUF ----
def k_blocks(x, bits):
    """Q4_K or Q5_K of [rows, cols], as bytes."""
    most = (1 << bits) - 1
    x = x.reshape(-1, 8, 32).astype(np.float32)
    low, high = np.minimum(x.min(2), 0), x.max(2)
    scale, least = np.maximum(high - low, 0) / most, -low
    halves = []
    for s in (scale, least):
        d = (s.max(1, keepdims=True) / 63).astype(np.float16)
        wide = d.astype(np.float32)
        halves.append((d, np.clip(np.rint(np.divide(s, wide, out=np.zeros_like(s), where=wide > 0)), 0, 63).astype(np.uint8), wide))
    (d, sc, wide_d), (dmin, mn, wide_min) = halves
    step, offset = (wide_d * sc)[..., None], (wide_min * mn)[..., None]
    q = np.clip(np.rint(np.divide(x + offset, step, out=np.zeros_like(x), where=step > 0)), 0, most).astype(np.uint8)
    packed = np.concatenate([sc[:, :4] | (sc[:, 4:] >> 4) << 6, mn[:, :4] | (mn[:, 4:] >> 4) << 6, sc[:, 4:] & 15 | (mn[:, 4:] & 15) << 4], 1)
    pairs = q.reshape(-1, 4, 2, 32)
    nibbles = ((pairs[:, :, 0] & 15) | (pairs[:, :, 1] & 15) << 4).reshape(-1, 128)
    parts = [d.view(np.uint8), dmin.view(np.uint8), packed]
    if bits == 5:
        parts.append(np.bitwise_or.reduce((q >> 4) << np.arange(8, dtype=np.uint8)[None, :, None], 1).astype(np.uint8))
    return np.concatenate(parts + [nibbles], 1)


def write_gguf(path, tensors, type_):
    writer, errors = gguf.GGUFWriter(path, 'flux'), []
    for name, t in tensors.items():
        if not quantised(name, t):
            writer.add_tensor(name, t.float().numpy())
            continue
        x = t.float().numpy()
        if type_.endswith('_K'):
            data = k_blocks(x, int(type_[1])).reshape(x.shape[0], -1)
        else:
            data = gguf.quants.quantize(x, Type[type_])
        errors.append((x, gguf.quants.dequantize(data, Type[type_])))
        writer.add_tensor(name, data, raw_dtype=Type[type_])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return errors


# ---- safetensors ----
def tiles(scales):
    """[rows, cols] in tiles of 128 x 4, padded."""
    rows, cols = scales.shape
    high, wide = -(-rows // 128), -(-cols // 4)
    padded = torch.zeros(high * 128, wide * 4, dtype=scales.dtype)
    padded[:rows, :cols] = scales
    t = padded.view(high, 4, 32, wide, 4).permute(0, 3, 2, 1, 4)
    return t.reshape(high * 128, wide * 4).contiguous()


def fp8(x, name, scale_name):
    scale = x.abs().max() / 448
    codes = (x / scale).to(torch.float8_e4m3fn)
    return {name: codes, name.replace('weight', scale_name): scale.reshape(())}, codes.float() * scale, 'float8_e4m3fn'


def int8(x, name):
    scale = x.abs().amax(1, keepdim=True) / 127
    codes = (x / scale).round().clamp(-127, 127).to(torch.int8)
    return {name: codes, name.replace('weight', 'weight_scale'): scale}, codes.float() * scale, 'int8_tensorwise'


def mxfp8(x, name):
    blocks = x.view(x.shape[0], -1, 32)
    exponent = (blocks.abs().amax(2) / 448).log2().ceil().clamp(-127, 127)
    codes = (blocks * torch.exp2(-exponent)[..., None]).clamp(-448, 448).to(torch.float8_e4m3fn)
    value = (codes.float() * torch.exp2(exponent)[..., None]).view_as(x)
    return {name: codes.view_as(x), name.replace('weight', 'weight_scale'): tiles((exponent + 127).to(torch.uint8))}, value, 'mxfp8'


def nvfp4(x, name):
    blocks, tensor = x.view(x.shape[0], -1, 16), x.abs().max() / (448 * 6)
    scale = (blocks.abs().amax(2) / 6 / tensor).clamp(max=448).to(torch.float8_e4m3fn)
    step = (scale.float() * tensor)[..., None]
    part = torch.where(step > 0, blocks / step, torch.zeros_like(blocks)).clamp(-6, 6)
    distance = (part.abs()[..., None] - E2M1).abs()
    code = distance.argmin(-1)  # of two that are as near the smaller one; halves go to even codes
    up = (code + 1).clamp(max=7)
    tie = (distance.gather(-1, code[..., None]) == distance.gather(-1, up[..., None]))[..., 0] & (code % 2 == 1)
    code = torch.where(tie, up, code)
    value = torch.where(part < 0, -E2M1[code], E2M1[code]) * step
    code = (code | (part < 0).long() << 3).view_as(x).to(torch.uint8)
    packed = code[:, 0::2] << 4 | code[:, 1::2]
    return {name: packed, name.replace('weight', 'weight_scale'): tiles(scale.view(torch.uint8)).view(torch.float8_e4m3fn),
            name.replace('weight', 'weight_scale_2'): tensor.reshape(())}, value.view_as(x), 'nvfp4'


def write_scaled(path, tensors, form):
    out, errors, layers = {}, [], {}
    for name, t in tensors.items():
        if not quantised(name, t):
            out[name] = t
            continue
        x = t.float()
        made = fp8(x, name, FP8[form]) if form in FP8 else {'int8': int8, 'mxfp8': mxfp8, 'nvfp4': nvfp4}[form](x, name)
        out |= made[0]
        layers[name.removesuffix('.weight')] = {'format': made[2]}
        errors.append((x.numpy(), made[1].numpy()))
    old = form == 'fp8-scaled'
    if old:
        out['scaled_fp8'] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(out, path, None if old else {'_quantization_metadata': json.dumps({'format_version': '1.0', 'layers': layers})})
    return errors


def decibel(errors):
    signal = sum(float((x.astype(np.float64) ** 2).sum()) for x, _ in errors)
    noise = sum(float(((x - y).astype(np.float64) ** 2).sum()) for x, y in errors)
    return 10 * math.log10(signal / noise)


def main(checkpoint, folder):
    os.makedirs(folder, exist_ok=True)
    tensors = {}
    for file in sorted(os.listdir(f'{checkpoint}/transformer')):
        if file.endswith('.safetensors'):
            tensors |= load_file(f'{checkpoint}/transformer/{file}')
    rest = ' '.join(f'{part}-path={checkpoint}' for part in ('vae', 'clip', 't5', 'tokenizer'))
    settings = ['[named, vague, open]']
    for form in (*BLOCKS, *FP8, 'int8', 'mxfp8', 'nvfp4'):
        path = os.path.abspath(f'{folder}/{form.lower()}.' + ('gguf' if form in BLOCKS else 'safetensors'))
        errors = write_gguf(path, tensors, form) if form in BLOCKS else write_scaled(path, tensors, form)
        print(f'{form:18} {os.path.getsize(path) / 1e6:6.2f} MB  weights {decibel(errors):5.1f} dB', flush=True)
        if form != 'fp8-weight-scale':  # the same numbers as fp8-scaled
            settings.append(f'{form.lower()}: model-path={path} {rest}')
    with open(f'{folder}/settings.txt', 'w') as f:
        f.write('\n'.join(settings) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
