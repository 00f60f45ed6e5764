#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints a calibration file with one scale for every matrix: for timings of quantization=fp8-static, where measured
scales would take long and change nothing.

usage: make_calibration.py MODEL_HASH [SCALE] [DOUBLE_BLOCKS] [SINGLE_BLOCKS]     default: 0.05 19 38

The hash is what a file of another model is refused with:
    make_calibration.py 0 > c.json; fluxkontext-bench -m MODEL quantization=fp8-static calibration-path=c.json
"""
import json
import sys

DOUBLE = ('attn.to_k+to_v+to_q', 'attn.to_out.0', 'ff.net.0.proj', 'ff.net.2', 'attn.add_k_proj+add_v_proj+add_q_proj',
          'attn.to_add_out', 'ff_context.net.0.proj', 'ff_context.net.2')
SINGLE = ('attn.to_k+attn.to_v+attn.to_q+proj_mlp', 'proj_out')


def main():
    model, scale, doubles, singles = (sys.argv[1:] + ['0.05', '19', '38'][len(sys.argv) - 2:])[:4]
    names = [f'transformer_blocks.{i}.{n}' for i in range(int(doubles)) for n in DOUBLE]
    names += [f'single_transformer_blocks.{i}.{n}' for i in range(int(singles)) for n in SINGLE]
    print(json.dumps({'fluxkontext-calibration': 1, 'model': model, 'edits': 0,
                      'layers': {n: float(scale) for n in names}}, indent=1))


if len(sys.argv) < 2:
    sys.exit(__doc__)
main()
