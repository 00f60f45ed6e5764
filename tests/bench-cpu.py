#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the demo edit (256x256, 28 steps, float32) with this engine and with diffusers on the same machine, in turn,
and prints medians, ratio, peak memory of both processes, our time for each stage, and how far apart the two pictures
are.

usage: FK_PYTHON=PYTHON-WITH-DIFFUSERS tests/bench-cpu.py [--build build] [--rounds 5] [--threads 2] [--json FILE]

Both times are of one edit, without loading. diffusers edits once to warm up before it is timed; ours is the first and
only edit of its process. Only the standard library is needed here; FK_PYTHON (default: this Python) needs torch and
diffusers. Not part of the tests: run it on a machine that does nothing else.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEMO = os.path.join(TOP, 'examples', 'demo-model')
PHOTO = os.path.join(DEMO, 'photos', 'coffee_256.png')
PROMPT, SEED, STEPS = 'make it night', 1, 28
STAGES = ('text', 'encode', 'denoise', 'decode')

THEIRS = '''
import json, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(int(sys.argv[3]))
import numpy, reference
from PIL import Image
import diffusers
pipe = reference.load(sys.argv[1] + '/checkpoint')
image = Image.open(sys.argv[2]).convert('RGB')
def edit():
    return pipe(image=image, prompt=sys.argv[4], height=256, width=256, max_area=65536, _auto_resize=False,
                max_sequence_length=64, guidance_scale=2.5, num_inference_steps=int(sys.argv[5]),
                generator=torch.Generator('cpu').manual_seed(int(sys.argv[6]))).images[0]
with torch.no_grad():
    edit()
    start = time.perf_counter()
    result = edit()
    seconds = time.perf_counter() - start
a = numpy.asarray(result).astype(int)
b = numpy.asarray(Image.open(sys.argv[7]).convert('RGB')).astype(int)
print(json.dumps({'ms': 1000 * seconds, 'largest_difference': int(abs(a - b).max()),
                  'mean_square': float(((a - b) ** 2).mean()), 'torch': torch.__version__,
                  'diffusers': diffusers.__version__}))
'''


def run(command, environment):
    """(output, peak resident bytes) of a child."""
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f'{command[0]}: exit status {child.returncode}\n{output}')
    return output, usage.ru_maxrss * 1024


def ours(build, threads, out):
    tool = os.path.join(build, 'examples', 'fluxkontext-edit-image')
    text, peak = run([tool, '-m', os.path.join(DEMO, 'checkpoint'), '-p', PROMPT, PHOTO, out, f'seed={SEED}',
                      f'steps={STEPS}', 'backend=cpu'], {**os.environ, 'FK_THREADS': str(threads)})
    found = re.search(r'text ([\d.]+) ms, encode ([\d.]+) ms, \d+ evaluations? ([\d.]+) ms, decode ([\d.]+) ms', text)
    times = dict(zip(STAGES, map(float, found.groups())))
    return {'ms': sum(times.values()), 'peak': peak, **times}


def theirs(threads, out):
    python = os.environ.get('FK_PYTHON', sys.executable)
    text, peak = run([python, '-c', THEIRS, DEMO, PHOTO, str(threads), PROMPT, str(STEPS), str(SEED), out],
                     {**os.environ, 'OMP_NUM_THREADS': str(threads), 'HF_HUB_OFFLINE': '1'})
    return {**json.loads(text.strip().splitlines()[-1]), 'peak': peak}


def processor():
    with open('/proc/cpuinfo') as f:
        names = [line.split(':', 1)[1].strip() for line in f if line.startswith('model name')]
    return f'{names[0] if names else platform.machine()}, {os.cpu_count()} processors'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--build', default=os.path.join(TOP, 'build', 'demo'))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--json')
    args = parser.parse_args()
    mine, other = [], []
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, 'out.png')
        for i in range(args.rounds):
            mine.append(ours(args.build, args.threads, out))
            other.append(theirs(args.threads, out))
            print(f'round {i + 1}: {mine[-1]["ms"]:.0f} ms, diffusers {other[-1]["ms"]:.0f} ms', flush=True)

    def median(rows, key):
        return statistics.median(row[key] for row in rows)

    a, b = median(mine, 'ms'), median(other, 'ms')
    print(f'\n{processor()}, {args.threads} threads; 256x256, {STEPS} steps, float32, demo checkpoint; medians of '
          f'{args.rounds}; diffusers {other[0]["diffusers"]}, torch {other[0]["torch"]}')
    print(f'edit      {a:7.0f} ms   diffusers {b:7.0f} ms   ratio {b / a:.2f}')
    print(f'peak RSS  {median(mine, "peak") / 1e6:7.0f} MB   diffusers {median(other, "peak") / 1e6:7.0f} MB')
    print('stages    ' + ', '.join(f'{stage} {median(mine, stage):.0f} ms' for stage in STAGES))
    print(f'pictures  largest difference {max(row["largest_difference"] for row in other)} of 255')
    if args.json:
        with open(args.json, 'w') as f:
            json.dump({'machine': processor(), 'threads': args.threads, 'ours': mine, 'diffusers': other}, f, indent=1)


main()
