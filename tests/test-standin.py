#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stand-in driver under upstream's cudaupload and cudadownload: pixels, copies, memory. Prints TAP.
$FK_STANDIN_DIR: folder of libcuda.so.1 and libnvcuvid.so.1."""
import os
import subprocess
import sys
import tempfile

from frames_util import planes, seen

FRAMES = 3
SIZES = [(319, 241), (33, 17), (641, 359)]


def play(env, path, caps, *elements):
    line = ['gst-launch-1.0', '-q', 'videotestsrc', f'num-buffers={FRAMES}', '!', caps, '!', *elements, 'filesink',
            f'location={path}']
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)
    with open(path, 'rb') as file:
        return file.read(), done.stderr


def main():
    with tempfile.TemporaryDirectory() as scratch:
        env = dict(os.environ, GST_REGISTRY=f'{scratch}/registry', FK_STANDIN_COUNTS='1')
        env['LD_LIBRARY_PATH'] = ':'.join(filter(None, [env['FK_STANDIN_DIR'], env.get('LD_LIBRARY_PATH')]))
        if subprocess.run(['gst-inspect-1.0', '--exists', 'cudaupload'], env=env, capture_output=True).returncode:
            print('ok 1 /standin # SKIP no element cudaupload: the package gstreamer1.0-plugins-bad is missing\n1..1')
            return 0
        n = failed = 0
        for name in ['RGB', 'RGBA', 'BGRx', 'NV12', 'I420', 'P010_10LE']:
            for w, h in SIZES:
                caps, layout = f'video/x-raw,format={name},width={w},height={h}', planes(name, w, h)
                system, _ = play(env, f'{scratch}/system', caps)
                device, log = play(env, f'{scratch}/device', caps, 'cudaupload', '!', 'video/x-raw(memory:CUDAMemory)',
                                   '!', 'cudadownload', '!', caps, '!')
                copies = FRAMES * len(layout)  # one for each plane and direction
                counts = f'stand-in: {copies} uploads, {copies} downloads, 0 on the device, '\
                    '0 between contexts, 0 allocations live'
                rows = seen(system, layout, FRAMES)
                cases = {'pixels': rows is not None and rows == seen(device, layout, FRAMES), 'copies': counts in log}
                for case, ok in cases.items():
                    n += 1
                    failed += not ok
                    print(f'{"ok" if ok else "not ok"} {n} /standin/{case}/{name}-{w}x{h}')
                    if not ok:
                        print('\n'.join('# ' + line for line in log.splitlines()))
        print(f'1..{n}')
        return 1 if failed else 0


sys.exit(main())
