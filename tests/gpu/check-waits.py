#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""That kernels which are launched before the one in front of them has ended wait before they touch memory. Prints TAP.

usage: check-waits.py NVCC [FOLDER OF KERNELS]

A race here would be silent, and a compiler may move a load that it takes for one of a constant. So the PTX of every
kernel that a dependent launch names is read: it waits once, outside of any branch's reach backwards, and nothing in
front of that loads, stores or copies but parameters and shared memory. Needs no GPU."""
import re
import subprocess
import sys
from pathlib import Path

FILES = ['elementwise', 'linear', 'linear_fp8', 'norm', 'quant']
# Launched with a cluster, so not by fk_cuda_launch but by fk_cuda_depend; or by a name of their launcher's own.
OTHERS = {'linear': ['linear_pingpong_sm90_kernel', 'linear_few_sm90_kernel'],
          'linear_fp8': ['linear_fp8_pingpong_sm90_kernel', 'linear_fp8_sm90_kernel'],
          'elementwise': ['map_kernel', 'map_dense_kernel'], 'quant': ['map_kernel']}
# Memory that another kernel may write: generic and global accesses, copies of the copy engine, prefetches of what they
# bring. Barriers in shared memory, parameters and tensor maps (parameters too) are not.
TOUCHES = re.compile(r'\b(ld|ldu|st|red|atom|cp\.async|cp\.reduce|prefetchu?)\b(?!\.(param|shared|local|const))(?!\.async\.(wait|commit))')
HARMLESS = re.compile(r'prefetch\.(param\.)?tensormap|prefetch\.tensormap')


def launched(folder, name):
    text = (folder / f'{name}.cu').read_text()
    names = set(re.findall(r'fk_cuda_launch\(cu, (\w+_kernel)', text)) | set(OTHERS.get(name, []))
    for line in re.findall(r'fk_cuda_launch\(cu, [^;]*;', text):
        names |= set(re.findall(r'(\w+_kernel)\b', line))
    return names


def entries(ptx):
    """(name, body) of each kernel."""
    for m in re.finditer(r'\.entry (\w+)\(.*?\n\{\n(.*?)\n\}\n', ptx, re.S):
        yield m.group(1), m.group(2)


def fault(body):
    lines = [line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith('//')]
    waits = [i for i, line in enumerate(lines) if line.startswith('griddepcontrol.wait')]
    if len(waits) != 1: return f'{len(waits)} waits'
    if not lines[waits[0] + 1].startswith('griddepcontrol.launch_dependents'): return 'lets the next one come elsewhere'
    labels = {line[:-1] for line in lines[:waits[0]] if re.match(r'\$\w+:$', line)}
    for line in lines[waits[0]:]:
        jump = re.search(r'\bbra(?:\.uni)?\s+(\$\w+)', line)
        if jump and jump.group(1) in labels: return f'goes back in front of its wait: {line}'
    for i, line in enumerate(lines[:waits[0]]):
        jump = re.search(r'\bbra(?:\.uni)?\s+(\$\w+)', line)
        if jump and jump.group(1) not in labels: return f'goes round its wait: {line}'
        if re.match(r'(@!?%\w+ )?(ret|exit);', line): return f'ends before its wait: {line}'
        if TOUCHES.search(line) and not HARMLESS.search(line): return f'before its wait: {line}'
    return None


def main():
    nvcc, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parents[2] / 'kernels')
    number = failed = 0
    for name in FILES:
        done = subprocess.run([nvcc, '-std=c++20', '-O3', '-DFK_WAIT_TRAP', '-arch=compute_90a', '-ptx', '-o', '-',
                               str(folder / f'{name}.cu')], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        found = {}
        for entry, body in entries(done.stdout):
            for kernel in launched(folder, name):
                if re.search(rf'\d{kernel}(?!\w*_kernel)', entry): found.setdefault(kernel, []).append((entry, fault(body)))
        for kernel in sorted(launched(folder, name)):
            number += 1
            bad = [f'{entry}: {what}' for entry, what in found.get(kernel, []) if what] or \
                ([] if kernel in found else ['no such kernel'])
            failed += bool(bad)
            print(f'{"not ok" if bad else "ok"} {number} /waits/{name}/{kernel} ({len(found.get(kernel, []))})', flush=True)
            for line in bad: print('# ' + line)
    print(f'1..{number}')
    return 1 if failed else 0


sys.exit(main())
