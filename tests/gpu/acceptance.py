#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What 8 bits cost one velocity, measured on the demo checkpoint: the bounds that docs/quality.md names.

usage: acceptance.py [-m MODEL] [-b BACKEND] [-n CASES_OF_A_TIER] [--planted] [FORM ...]

FORM: settings of an edit, "quantization=fp8" and its kin (default: fp8, mxfp8). precision-first=K leaves the
evaluations before K unquantised, byte for byte, so that evaluation K has the latents of the unquantised edit and its
velocity can be compared: relative L2, at evaluations 0, 9, 18 and 26 of 28. --planted: on a copy of the model that
computes the same, in which 2 % of the columns behind norms and attention are 64 times larger and the weights that take
them as much smaller. Needs fluxkontext-edit-image in $PATH, numpy, and torch with safetensors for --planted. Exit status
1 where a bound is missed."""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..')
PROBES = (0, 9, 18, 26)
# Medians over 24 cases: above the first something is wrong, below the second, which is for weights and attention in 8
# bits, something was not quantised.
MOST, LEAST, WORST, PLANTED = (.023, .030, .036, .085), (.012, .016, .020, .045), (.12, .12, .12, .20), .030
LINEAR_MOST, ATTENTION_MOST = .028, .015  # weights alone, attention alone, at evaluation 9


def chosen(n):
    path = f'{ROOT}/tests/quality/cases.json'
    with open(path) as f:
        cases = json.load(f)
    picked = []
    for tier in ('named', 'vague', 'open'):
        of = [c for c in cases if c['tier'] == tier]
        picked += [of[i * len(of) // n] for i in range(min(n, len(of)))]
    return [(c, os.path.join(os.path.dirname(path), c['input'])) for c in picked]


def velocities(a, case, picture, settings):
    with tempfile.TemporaryDirectory() as folder:
        line = ['fluxkontext-edit-image', '-m', a.model, '-p', case['prompt'], picture, f'{folder}/out.png',
                f'backend={a.backend}', 'preset=exact', f'seed={case["seed"]}', *settings]
        done = subprocess.run(line, env=dict(os.environ, FK_DUMP=folder), capture_output=True, text=True)
        if done.returncode: sys.exit(f'{" ".join(line)}\n{done.stderr}')
        return [np.load(p) for p in sorted(glob.glob(f'{folder}/*-velocity.npy'))]


def errors(a, form):
    """[case][probe]"""
    table = []
    for case, picture in chosen(a.number):
        if case['id'] not in a.exact: a.exact[case['id']] = dict(enumerate(velocities(a, case, picture, [])))
        exact = a.exact[case['id']]
        row = []
        for k in PROBES if not a.planted else (9,):
            more = [f'precision-first={k}'] if k else []
            have = velocities(a, case, picture, form.split() + more)[k]
            row.append(float(np.linalg.norm(have - exact[k]) / np.linalg.norm(exact[k])))
        table.append(row)
        print(f'  {case["id"]:24s} ' + ' '.join(f'{100 * e:6.2f}' for e in row), flush=True)
    return np.array(table)


def plant(folder, to):
    """The same function with outlying columns. Norms: (1 + scale) and shift of a column times b, by the modulation's
    rows; attention: rows of V times b. What reads them: columns by b smaller. Powers of two, in float32."""
    import torch
    from safetensors.torch import load_file, save_file
    shutil.copytree(folder, to)
    paths = sorted(glob.glob(f'{to}/transformer/*.safetensors'))
    of = {k: p for p in paths for k in load_file(p)}
    w = {k: v.float() for p in paths for k, v in load_file(p).items()}
    d = w['x_embedder.weight'].shape[0]
    random = torch.Generator().manual_seed(1)

    def factors(n):
        b = torch.ones(n)
        b[torch.randperm(n, generator=random)[:max(1, round(.02 * n))]] = 64
        return b

    def norm(mod, shift, readers):
        b = factors(d)
        shifts, scales = slice(shift * d, (shift + 1) * d), slice((shift + 1) * d, (shift + 2) * d)
        weight, bias = w[f'{mod}.weight'], w[f'{mod}.bias']
        weight[shifts] *= b[:, None]
        bias[shifts] *= b
        weight[scales] *= b[:, None]
        bias[scales] = b * (bias[scales] + 1) - 1
        for name in readers: w[f'{name}.weight'] /= b

    def attention(values, readers):
        b = factors(d)
        for name in values:
            w[f'{name}.weight'] *= b[:, None]
            w[f'{name}.bias'] *= b
        for name in readers: w[f'{name}.weight'][:, :d] /= b
    doubles = len({k.split('.')[1] for k in w if k.startswith('transformer_blocks.')})
    singles = len({k.split('.')[1] for k in w if k.startswith('single_transformer_blocks.')})
    for i in range(doubles):
        p = f'transformer_blocks.{i}'
        norm(f'{p}.norm1.linear', 0, [f'{p}.attn.to_{x}' for x in 'qkv'])
        norm(f'{p}.norm1.linear', 3, [f'{p}.ff.net.0.proj'])
        norm(f'{p}.norm1_context.linear', 0, [f'{p}.attn.add_{x}_proj' for x in 'qkv'])
        norm(f'{p}.norm1_context.linear', 3, [f'{p}.ff_context.net.0.proj'])
        attention([f'{p}.attn.to_v', f'{p}.attn.add_v_proj'], [f'{p}.attn.to_out.0', f'{p}.attn.to_add_out'])
    for i in range(singles):
        p = f'single_transformer_blocks.{i}'
        norm(f'{p}.norm.linear', 0, [f'{p}.attn.to_q', f'{p}.attn.to_k', f'{p}.attn.to_v', f'{p}.proj_mlp'])
        attention([f'{p}.attn.to_v'], [f'{p}.proj_out'])
    for path in paths: save_file({k: w[k].contiguous() for k in of if of[k] == path}, path)


def report(form, found, planted):
    middle, worst, word = np.median(found, axis=0), found.max(axis=0), ('MISSED', 'ok')
    if planted:
        ok = middle[0] <= PLANTED
        print(f'{form}: planted, evaluation 9: {100 * middle[0]:.2f} % (at most {100 * PLANTED:.1f})', word[bool(ok)])
        return ok
    attention, weights = 'attention-precision=fp8' in form.split(), form.startswith('quantization=')
    low = LEAST if attention and weights else (0,) * len(PROBES)
    alone = MOST[1] if attention and weights else LINEAR_MOST if weights else ATTENTION_MOST
    ok = all(middle <= MOST) and all(middle >= low) and all(worst <= WORST) and middle[1] <= alone
    say = lambda values: ' / '.join(f'{100 * v:.2f}' for v in values)
    print(f'{form}: median {say(middle)} % (at most {say(MOST)}), worst {say(worst)} % (at most {say(WORST)})', word[bool(ok)])
    return bool(ok)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('-m', '--model', default=f'{ROOT}/examples/demo-model/checkpoint')
    parser.add_argument('-b', '--backend', default='cuda')
    parser.add_argument('-n', '--number', type=int, default=8)
    parser.add_argument('--planted', action='store_true')
    parser.add_argument('forms', nargs='*', default=['quantization=fp8', 'quantization=mxfp8'])
    a = parser.parse_args()
    a.exact, ok = {}, True
    with tempfile.TemporaryDirectory() as scratch:
        if a.planted:
            plant(a.model, f'{scratch}/model')
            a.plain, a.model = a.model, f'{scratch}/model'
            case, picture = chosen(1)[0]
            first, model = velocities(a, case, picture, ['steps=1'])[0], a.model
            a.model = a.plain
            plain = velocities(a, case, picture, ['steps=1'])[0]
            a.model = model
            print(f'planted against plain: {np.linalg.norm(first - plain) / np.linalg.norm(plain):.1e}', flush=True)
        for form in a.forms:
            print(form, flush=True)
            ok = report(form, errors(a, form), a.planted) and ok
    return 0 if ok else 1


sys.exit(main())
