#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stand-in driver under upstream's cudaupload and cudadownload: pixels, copies, memory. Prints TAP.

usage: test-standin.py [edits]
edits: with the element between the two, on the module that follows the driver's memory, which is closed to all else.
$FK_STANDIN_DIR: folder of libcuda.so.1, libnvcuvid.so.1 and fkcuda.so."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from frames_util import planes, seen

FRAMES = 3
SIZES = [(319, 241), (33, 17), (641, 359)]
MODEL = Path(__file__).resolve().parent.parent / 'examples/demo-model/checkpoint'
MEMORY = 'video/x-raw(memory:CUDAMemory)'
UP, DOWN = ['cudaupload', '!', MEMORY, '!'], [MEMORY, '!', 'cudadownload', '!']
EDIT = ['fluxkontextedit', 'backend=cuda', f'model-path={MODEL}', 'prompt=red', 'steps=1', 'max-area=1024', 'seed=1',
        'progress=false', '!']
number = failed = 0


def case(name, ok, log):
    global number, failed
    number += 1
    failed += not ok
    print(f'{"ok" if ok else "not ok"} {number} /standin/{name}', flush=True)
    if not ok: print('\n'.join('# ' + line for line in log.splitlines()), flush=True)


def play(env, path, name, w, h, *elements):
    """(the rows that are seen, None if there are not all; log) --no-fault: a crash ends the process."""
    caps = f'video/x-raw,format={name},width={w},height={h},framerate=10/1'
    line = ['gst-launch-1.0', '-q', '--no-fault', 'videotestsrc', f'num-buffers={FRAMES}', '!', caps, '!', *elements,
            *([caps, '!'] if elements else []), 'filesink', f'location={path}']
    Path(path).touch()
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)
    with open(path, 'rb') as file:
        rows = seen(file.read(), planes(name, w, h), FRAMES)
    return None if done.returncode else rows, f'{done.stderr}exit status {done.returncode}'


def copies(env, scratch):
    for name in ['RGB', 'RGBA', 'BGRx', 'NV12', 'I420', 'P010_10LE']:
        for w, h in SIZES:
            system, _ = play(env, f'{scratch}/system', name, w, h)
            device, log = play(env, f'{scratch}/device', name, w, h, *UP, *DOWN[2:])
            made = FRAMES * len(planes(name, w, h))  # one for each plane and direction
            counts = f'stand-in: {made} uploads, {made} downloads, 0 on the device, 0 between contexts, '\
                '0 allocations live'
            case(f'pixels/{name}-{w}x{h}', system is not None and system == device, log)
            case(f'copies/{name}-{w}x{h}', counts in log, log)


def edits(env, scratch):
    """Pixels as through system memory; frames of cudaupload's context go to the engine's and back."""
    env = dict(env, FK_CUDA_MODULE=f'{env["FK_STANDIN_DIR"]}/fkcuda.so', FK_STANDIN_CLOSED='1')
    for name in ['RGB', 'NV12', 'P010_10LE']:
        system, log = play(env, f'{scratch}/system', name, 33, 17, *EDIT)
        case(f'edit/{name}', system is not None, log)
        for way, up, down, between in [('both', UP, DOWN, 2 * FRAMES), ('input', UP, [], 0), ('output', [], DOWN, 0)]:
            device, log = play(env, f'{scratch}/device', name, 33, 17, *up, *EDIT, *down)
            case(f'edit/{name}-{way}', device == system and f'{between} between contexts, 0 allocations live' in log, log)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        env = dict(os.environ, GST_REGISTRY=f'{scratch}/registry', FK_STANDIN_COUNTS='1')
        env['LD_LIBRARY_PATH'] = ':'.join(filter(None, [env['FK_STANDIN_DIR'], env.get('LD_LIBRARY_PATH')]))
        if subprocess.run(['gst-inspect-1.0', '--exists', 'cudaupload'], env=env, capture_output=True).returncode:
            print('ok 1 /standin # SKIP no element cudaupload: the package gstreamer1.0-plugins-bad is missing\n1..1')
            return 0
        (edits if sys.argv[1:] == ['edits'] else copies)(env, scratch)
        print(f'1..{number}')
        return 1 if failed else 0


sys.exit(main())
