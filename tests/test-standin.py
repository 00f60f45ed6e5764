#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stand-in driver under upstream's cudaupload and cudadownload: pixels, copies, memory. Prints TAP.
$FK_STANDIN_DIR: folder of libcuda.so.1 and libnvcuvid.so.1."""
import os
import subprocess
import sys
import tempfile

FRAMES = 3
SIZES = [(319, 241), (33, 17), (641, 359)]


def up(value, multiple):
    return (value + multiple - 1) // multiple * multiple


def planes(name, w, h):
    """(bytes that are seen, rows that are seen, stride, rows) of each plane, as GstVideoInfo lays them out."""
    cw, ch = (w + 1) // 2, (h + 1) // 2
    if name == 'RGB':
        return [(3 * w, h, up(3 * w, 4), h)]
    if name in ('RGBA', 'BGRx'):
        return [(4 * w, h, 4 * w, h)]
    if name == 'I420':
        return [(w, h, up(w, 4), up(h, 2))] + [(cw, ch, up(up(w, 2) // 2, 4), ch)] * 2
    depth = {'NV12': 1, 'P010_10LE': 2}[name]
    return [(w * depth, h, up(w * depth, 4), up(h, 2)), (2 * cw * depth, ch, up(w * depth, 4), ch)]


def seen(data, layout):
    """What of the frames is picture: padding may be anything."""
    rows, at = [], 0
    for _ in range(FRAMES):
        for width, height, stride, allocated in layout:
            rows += [data[at + y * stride:at + y * stride + width] for y in range(height)]
            at += stride * allocated
    return rows if at == len(data) else None


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
                rows = seen(system, layout)
                cases = {'pixels': rows is not None and rows == seen(device, layout), 'copies': counts in log}
                for case, ok in cases.items():
                    n += 1
                    failed += not ok
                    print(f'{"ok" if ok else "not ok"} {n} /standin/{case}/{name}-{w}x{h}')
                    if not ok:
                        print('\n'.join('# ' + line for line in log.splitlines()))
        print(f'1..{n}')
        return 1 if failed else 0


sys.exit(main())
