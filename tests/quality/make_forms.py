#!/usr/bin/env python3
"""The demo checkpoint's transformer in the forms of files that people have, and settings for fluxkontext-quality.

usage: make_forms.py CHECKPOINT OUT      needs numpy, torch, safetensors and gguf
       make_forms.py --rows OUT LAB      rows of docs/quality.md from the results of fluxkontext-quality -o LAB

OUT gets a file for each form, settings.txt, which compares them with the checkpoint in bfloat16, and forms.json, what each
form makes of the weights: dB of signal against error over all quantised numbers, of blocks by the gguf package's own reader.
As makers of such files do it, matrices of the blocks are quantised and the rest stays as it is. The gguf package cannot
write K and IQ4 blocks: here their scales follow from the extreme numbers of a block and each number takes the nearest
code, without a search for better scales and without an importance matrix, so that llama.cpp's files are better than these.
"""
import glob
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
BLOCKS = ('Q8_0', 'Q6_K', 'Q5_K', 'Q5_1', 'Q5_0', 'Q4_K', 'IQ4_NL', 'IQ4_XS', 'Q4_1', 'Q4_0', 'Q3_K', 'Q2_K')


def quantised(name, t):
    return t.dim() == 2 and name.startswith(('transformer_blocks', 'single_transformer_blocks'))


# ---- GGUF ----
def ratio(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape), np.float32), where=b != 0)


def nearest(x, step, low, high):
    return np.clip(np.rint(ratio(x, step)), low, high).astype(np.int8)


def farthest(x):
    """Of each row what is farthest from 0, with its sign."""
    return np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1)


def halves(x):
    """float16 as bytes, and as float32."""
    d = x.astype(np.float16)
    return d.view(np.uint8), d.astype(np.float32)


def merge(parts, bits):
    """[..., n, width]: n parts in the bits of one byte, the first lowest."""
    return np.bitwise_or.reduce(parts.astype(np.uint8) << (bits * np.arange(parts.shape[-2], dtype=np.uint8))[:, None], -2)


def signed(x, code, scale):
    """Codes from `code` to -code - 1 under scales from `scale` on likewise: (bytes of d, scales, step), by what is farthest."""
    s = farthest(x)[..., 0] / code
    d, wide = halves(farthest(s) / scale)
    sc = nearest(s, wide, scale, -scale - 1)
    return d, sc, (wide * sc)[..., None]


def unsigned(x, most, largest):
    """Codes from 0 to `most` above a least number, under scales and least numbers up to `largest`."""
    least = -np.minimum(x.min(2), 0)
    made = []
    for s in ((x.max(2) + least).clip(0) / most, least):
        d, wide = halves(s.max(1, keepdims=True) / largest)
        sc = nearest(s, wide, 0, largest).view(np.uint8)
        made.append((d, sc, (wide * sc)[..., None]))
    (d, sc, step), (dmin, mn, offset) = made
    return d, dmin, sc, mn, nearest(x + offset, step, 0, most).view(np.uint8)


def q2_k(x):
    d, dmin, sc, mn, q = unsigned(x.reshape(-1, 16, 16), 3, 15)
    return sc | mn << 4, merge(q.reshape(-1, 2, 4, 32), 2), d, dmin


def q3_k(x):
    x = x.reshape(-1, 16, 16)
    d, sc, step = signed(x, -4, -32)
    q, sc = (nearest(x, step, -4, 3) + 4).view(np.uint8), (sc + 32).view(np.uint8)
    return (merge(q.reshape(-1, 8, 32) >> 2, 1), merge(q.reshape(-1, 2, 4, 32) & 3, 2), merge(sc.reshape(-1, 2, 8) & 15, 4),
            merge(sc.reshape(-1, 4, 4) >> 4, 2), d)


def q45_k(x, bits):
    d, dmin, sc, mn, q = unsigned(x.reshape(-1, 8, 32), (1 << bits) - 1, 63)
    packed = sc[:, :4] | (sc[:, 4:] >> 4) << 6, mn[:, :4] | (mn[:, 4:] >> 4) << 6, sc[:, 4:] & 15 | (mn[:, 4:] & 15) << 4
    high = (merge(q >> 4, 1),) if bits == 5 else ()
    return d, dmin, *packed, *high, merge(q.reshape(-1, 4, 2, 32) & 15, 4)


def q6_k(x):
    x = x.reshape(-1, 16, 16)
    d, sc, step = signed(x, -32, -128)
    q = (nearest(x, step, -32, 31) + 32).view(np.uint8)
    return merge(q.reshape(-1, 2, 2, 64) & 15, 4), merge(q.reshape(-1, 2, 4, 32) >> 4, 2), sc.view(np.uint8), d


def curve(x, step):
    """IQ4: the nearest of 16 numbers, two codes a byte."""
    values = np.array(gguf.quants.IQ4_NL.kvalues, np.float32)
    return merge(np.abs(ratio(x, step)[..., None] - values).argmin(-1).reshape(-1, x.shape[1], 2, 16), 4)


def iq4_nl(x):
    x = x.reshape(-1, 1, 32)
    d, wide = halves(farthest(x)[..., 0] / -127)
    return d, curve(x, wide[..., None])


def iq4_xs(x):
    x = x.reshape(-1, 8, 32)
    d, sc, step = signed(x, -127, -32)
    sc = (sc + 32).view(np.uint8)
    high = np.bitwise_or.reduce((sc >> 4).astype(np.uint16) << 2 * np.arange(8, dtype=np.uint16), 1, keepdims=True)
    return d, high.view(np.uint8), merge(sc.reshape(-1, 4, 2, 1) & 15, 4), curve(x, step)


OWN = {'Q2_K': q2_k, 'Q3_K': q3_k, 'Q4_K': lambda x: q45_k(x, 4), 'Q5_K': lambda x: q45_k(x, 5), 'Q6_K': q6_k,
       'IQ4_NL': iq4_nl, 'IQ4_XS': iq4_xs}


def blocks(x, type_):
    """[rows, cols] as bytes, [rows, bytes]."""
    if type_ not in OWN:
        return gguf.quants.quantize(x, Type[type_])
    parts = OWN[type_](x)
    return np.concatenate([p.reshape(len(parts[0]), -1) for p in parts], 1).reshape(x.shape[0], -1)


def write_gguf(path, tensors, type_):
    writer, errors = gguf.GGUFWriter(path, 'flux'), []
    for name, t in tensors.items():
        if not quantised(name, t):
            writer.add_tensor(name, t.float().numpy())
            continue
        x = t.float().numpy()
        data = blocks(x, type_)
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


def cast(type_):
    def form(x, name):
        codes = x.to(type_)
        return {name: codes}, codes.float(), None
    return form


def fp8(scale_name, kind):
    def form(x, name):
        scale = x.abs().max() / 448
        codes = (x / scale).to(torch.float8_e4m3fn)
        return {name: codes, name.replace('weight', scale_name): scale.reshape(())}, codes.float() * scale, kind
    return form


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


SCALED = {'fp8-scaled': fp8('scale_weight', None), 'fp8-weight-scale': fp8('weight_scale', 'float8_e4m3fn'),
          'f8_e4m3': cast(torch.float8_e4m3fn), 'f8_e5m2': cast(torch.float8_e5m2), 'int8': int8, 'mxfp8': mxfp8, 'nvfp4': nvfp4}


def write_scaled(path, tensors, form):
    out, errors, layers = {}, [], {}
    for name, t in tensors.items():
        if not quantised(name, t):
            out[name] = t
            continue
        x = t.float()
        made = SCALED[form](x, name)
        out |= made[0]
        if made[2]:
            layers[name.removesuffix('.weight')] = {'format': made[2]}
        errors.append((x.numpy(), made[1].numpy()))
    if form == 'fp8-scaled':
        out['scaled_fp8'] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(out, path, {'_quantization_metadata': json.dumps({'format_version': '1.0', 'layers': layers})} if layers else None)
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
    settings, told = ['[named, vague, open]'], {}
    for form in (*BLOCKS, *SCALED):
        path = os.path.abspath(f'{folder}/{form.lower()}.' + ('gguf' if form in BLOCKS else 'safetensors'))
        errors = write_gguf(path, tensors, form) if form in BLOCKS else write_scaled(path, tensors, form)
        told[form.lower()] = [form, os.path.getsize(path) / 1e6, decibel(errors)]
        print('{:18} {:6.2f} MB  weights {:5.1f} dB'.format(*told[form.lower()]), flush=True)
        if form != 'fp8-weight-scale':  # the same numbers as fp8-scaled
            settings.append(f'{form.lower()}: model-path={path} {rest}')
    with open(f'{folder}/settings.txt', 'w') as f:
        f.write('\n'.join(settings) + '\n')
    with open(f'{folder}/forms.json', 'w') as f:
        json.dump(told, f)


def rows(folder, lab):
    """Median, worst and how many cases of at least 30 dB, of each tier."""
    with open(f'{folder}/forms.json') as f:
        told = json.load(f)
    found = {}
    for file in glob.glob(f'{lab}/results*.jsonl'):  # one of each process
        with open(file) as f:
            for row in map(json.loads, f):
                found.setdefault(row['setting'], {}).setdefault(row['tier'], {})[row['case']] = row['psnr']
    for form, (name, size, dB) in told.items():
        tiers = [list(found.get(form, {}).get(tier, {}).values()) for tier in ('named', 'vague', 'open')]
        cells = [f'{np.median(x):.1f}, {min(x):.1f}, {sum(v >= 30 for v in x)}/{len(x)}' if x else '--' for x in tiers]
        print(f'| {name} | {size:.1f} MB | {dB:.1f} | ' + ' | '.join(cells) + ' |')


if __name__ == '__main__':
    rows(*sys.argv[2:]) if sys.argv[1:2] == ['--rows'] else main(*sys.argv[1:])
