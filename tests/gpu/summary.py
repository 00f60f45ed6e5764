# SPDX-License-Identifier: Apache-2.0
"""Small jobs of run-on-gpu.sh.

usage: summary.py psnr A.png B.png DECIBELS     exit status 1 if A is further from B than that
       summary.py dumps HAVE WANT LIMIT         relative L2 of the arrays of two FK_DUMP folders, 1 if one is over LIMIT
       summary.py edits LOG PEER.json           decibels of our edits (log of test-gpu-edit) beside the peer's: 1 if a
                                                named one is more than 2 dB under, or the vague ones are on average
       summary.py hog FREE_GB -- COMMAND        fills the GPU up to FREE_GB, then runs COMMAND
       summary.py table FOLDER                  the table of a run from FOLDER's JSON files
"""
import glob
import json
import os
import re
import subprocess
import sys

import numpy as np


def psnr(a, b, limit):
    from PIL import Image
    x, y = (np.asarray(Image.open(p).convert('RGB'), dtype=np.float64) for p in (a, b))
    d = ((x - y) ** 2).mean()
    value = 999.0 if d == 0 else 10 * np.log10(255.0 ** 2 / d)
    print(f'{a} against {b}: {value:.2f} dB (limit {limit})')
    return value < float(limit)


def arrays(folder):
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, '[0-9]*-*.npy'))):
        found.setdefault(os.path.basename(path).split('-', 1)[1][:-4], path)
    return {name: np.load(path).astype(np.float64) for name, path in found.items()}


def dumps(have, want, limit):
    a, b, bad = arrays(have), arrays(want), 0
    for name in b:
        if name not in a or a[name].size != b[name].size:
            print(f'OVER {name}: missing or of another size')
            bad += 1
            continue
        error = np.linalg.norm(a[name].ravel() - b[name].ravel()) / np.linalg.norm(b[name])
        over = not error <= float(limit)
        bad += over
        print(f'{"OVER" if over else "ok  "} {name:16s} relative error {error:.3e} (limit {limit})')
    return bad > 0 or not b


def edits(log, peer):
    with open(log) as f:
        ours = {n: float(v) for n, v in re.findall(r'edit (\S+\.png) ([0-9.]+) dB', f.read())}
    with open(peer) as f:
        theirs = {k[5:]: v for k, v in json.load(f).items() if k.startswith('edit ')}
    bad, vague = 0, []
    for name in sorted(ours.keys() & theirs.keys()):
        gap = ours[name] - theirs[name]
        named = not re.search('-[34]', name)
        if not named:
            vague.append(gap)
        bad += named and gap < -2
        print(f'{name:14s} ours {ours[name]:6.2f} dB  diffusers bf16 {theirs[name]:6.2f} dB  {gap:+.2f}'
              f'{"" if named else "  vague"}{"  UNDER" if named and gap < -2 else ""}')
    if vague:
        print(f'vague ones, mean of {len(vague)}: {np.mean(vague):+.2f} dB')
        bad += np.mean(vague) < -2
    return bad > 0 or not ours or not theirs


def hog(free_gb, command):
    import torch
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - int(float(free_gb) * 1e9)), dtype=torch.uint8, device='cuda')
    print(f'{held.numel() / 1e9:.1f} GB held, {torch.cuda.mem_get_info()[0] / 1e9:.1f} GB free', flush=True)
    return subprocess.run(command).returncode


def read(folder, name):
    path = os.path.join(folder, name)
    if not os.path.exists(path) or not os.path.getsize(path):
        return {}
    with open(path) as f:
        try:
            return json.load(f)
        except ValueError:
            return {}


def number(value, digits=1):
    return f'{value:.{digits}f}' if isinstance(value, (int, float)) else '-'


def group_rate(ops, stage, op, m_min):
    rows = [r for r in ops if r['stage'] == stage and r['op'] == op and r['m'] >= m_min]
    ms, flop = sum(r['ms'] for r in rows), sum(r['flop'] for r in rows)
    return flop / ms / 1e9 if ms else None


def best(peer, *names):
    values = [peer[n] for n in names if isinstance(peer.get(n), (int, float))]
    return min(values) if values else None


def table(folder):
    large, small, peer = read(folder, 'bench1024.json'), read(folder, 'bench512.json'), read(folder, 'peer.json')
    if not large:
        return 0
    step = best(peer, 'step 1024 compiled cudnn', 'step 1024 eager cudnn', 'step 1024 eager')
    encode, decode = best(peer, 'encode eager'), best(peer, 'decode compiled', 'decode eager')
    t5 = best(peer, 't5 eager')
    whole = (28 * step + encode + decode + t5) / 1e3 if None not in (step, encode, decode, t5) else None
    memory = os.path.join(folder, 'memory.txt')
    used = max((int(x) for x in re.findall(r'\d+', open(memory).read())), default=0) if os.path.exists(memory) else 0
    ops = large.get('ops', [])
    edit = large['edit_ms'] / 1e3 if large.get('evaluations') == 28 else None
    step512 = best(peer, 'step 512 compiled cudnn', 'step 512 eager')
    rows = [('transformer step 1024, ms', large.get('step_ms'), step, '250', '225'),
            ('edit 1024, 28 steps, s', edit, whole, '7.2', '6.4'),
            ('transformer step 512, ms', small.get('step_ms'), step512, '', '50'),
            ('VAE encode 1024, ms', large.get('encode_ms'), encode, '30', '15'),
            ('VAE decode 1024, ms', large.get('decode_ms'), decode, '35', '25'),
            ('T5 + CLIP, 512 tokens, ms', large.get('text_ms'), t5, '20', '12'),
            ('attention, TFLOP/s', group_rate(ops, 'denoise', 'attention', 512), None, '650', '720'),
            ('linear, TFLOP/s', group_rate(ops, 'denoise', 'linear', 512), None, '', ''),
            ('open, s', large['open_ms'] / 1e3 if 'open_ms' in large else None, None, '', '3'),
            ('peak memory (nvidia-smi), GB', used * 1.048576 / 1e3 or None, None, '', '36')]
    print(f'{"":32s} {"ours":>9s} {"diffusers":>10s} {"must":>6s} {"goal":>6s}')
    for name, ours, theirs, must, goal in rows:
        print(f'{name:32s} {number(ours, 2):>9s} {number(theirs, 2):>10s} {must:>6s} {goal:>6s}')
    print('diffusers: best of eager and compiled; its edit is 28 steps + encode + decode + T5')
    return 0


def main():
    job, rest = sys.argv[1], sys.argv[2:]
    if job == 'hog':
        sys.exit(hog(rest[0], rest[2:]))
    sys.exit(int({'psnr': psnr, 'dumps': dumps, 'edits': edits, 'table': table}[job](*rest)))


if __name__ == '__main__':
    main()
