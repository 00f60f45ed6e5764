#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Frames in CUDA memory on a GPU, with upstream's cudaupload and cudadownload. Prints TAP.

usage: cuda_memory.py MODEL
Needs gst-launch-1.0 with the elements; where the driver has no libnvcuvid.so.1, that of tests/standin beside the real
libcuda.so.1 registers them. Environment: OUT (scratch), BACKEND (default cuda)."""
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from frames_util import planes, seen  # noqa: E402

FRAMES = 2
CUDA = 'video/x-raw(memory:CUDAMemory)'
FORMATS = ['RGB', 'BGR', 'RGBx', 'RGBA', 'BGRA', 'NV12', 'I420', 'P010_10LE']
SIZES = [(319, 241), (256, 192)]
ODD = [(319, 241), (287, 193), (231, 271)]
OUT = os.environ.get('OUT', '/tmp')
number = failed = 0


def result(name, ok, log=''):
    global number, failed
    number += 1
    failed += not ok
    print(f'{"ok" if ok else "not ok"} {number} /gpu/cuda-memory/{name}', flush=True)
    if not ok: print('\n'.join('# ' + line for line in log.splitlines()[-8:]), flush=True)


def launch(*line, seconds=30):
    """(whether it went well, log). --no-fault: a crash ends the process, which else waits for a debugger."""
    process = subprocess.Popen(['gst-launch-1.0', '-q', '--no-fault', *line], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        log = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return False, f'{process.communicate()[0]}\nstopped after {seconds} s'
    return process.returncode == 0 and 'ERROR' not in log, f'{log}\nexit status {process.returncode}'


def edit(model, *settings):
    return ['fluxkontextedit', f'backend={os.environ.get("BACKEND", "cuda")}', f'model-path={model}', 'seed=1',
            'prompt=make it night', 'progress=false', 'steps=4', *settings]


def transparent(w, h):
    """A PNG with a shape of no alpha, an edge of some, and another of little."""
    def alpha(x, y):
        far = ((x - w * 0.4) / w) ** 2 + ((y - h * 0.6) / h) ** 2
        return 0 if far < 0.03 else min(255, int(far * 4000)) if far < 0.06 else 40 if x > w - 9 and y < 12 else 255
    rows = b''.join(b'\0' + b''.join(bytes((x % 256, y % 256, x * y % 256, alpha(x, y))) for x in range(w)) for y in range(h))
    parts = [(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 6, 0, 0, 0)), (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    path = f'{OUT}/transparent-{w}x{h}.png'
    with open(path, 'wb') as file:
        file.write(b'\x89PNG\r\n\x1a\n')
        for kind, data in parts:
            file.write(struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data)))
    return path


def pixels(model, name, w, h, settings, upload, download):
    """(rows that are seen, log) of a pipeline with CUDA memory on the sides asked for."""
    caps, path = f'video/x-raw,format={name},width={w},height={h}', f'{OUT}/frames.raw'
    frames, source = FRAMES, ['videotestsrc', f'num-buffers={FRAMES}', '!', caps]
    if 'mask=alpha' in settings:
        frames, source = 1, ['filesrc', f'location={transparent(w, h)}', '!', 'pngdec', '!', 'videoconvert', '!', caps]
    to = ['cudaupload', '!', CUDA, '!'] if upload else []
    back = [CUDA, '!', 'cudadownload', '!'] if download else []
    ok, log = launch(*source, '!', *to, *edit(model, *settings), '!', *back,
                     caps, '!', 'filesink', f'location={path}')
    with open(path, 'rb') as file:
        return (seen(file.read(), planes(name, w, h), frames) if ok else None), log


WAYS = [(True, True), (True, False), (False, True)]


def same(model, label, name, w, h, *settings, ways=WAYS):
    expected, log = pixels(model, name, w, h, settings, False, False)
    for upload, download in ways:
        found, more = pixels(model, name, w, h, settings, upload, download)
        way = f'{"cuda" if upload else "system"}-{"cuda" if download else "system"}'
        result(f'{label}/{way}', expected is not None and found == expected, log + more)


def used():
    text = subprocess.run(['nvidia-smi', '-i', os.environ.get('CUDA_VISIBLE_DEVICES', '0'), '--query-gpu=memory.used', '--format=csv,noheader,nounits'],
                          capture_output=True, text=True).stdout
    return int(text.split()[0])


def long_stream(model):
    """Device memory, in MiB, while 1,000 frames run: the second half may not need more than the first."""
    if not shutil.which('nvidia-smi'): return
    samples, running = [], True

    def sample():
        while running:
            samples.append(used())
            time.sleep(0.2)

    thread = threading.Thread(target=sample)
    thread.start()
    ok, log = launch('videotestsrc', 'num-buffers=1000', '!', 'video/x-raw,format=NV12,width=64,height=48', '!', 'cudaupload',
                     '!', CUDA, '!', *edit(model, 'steps=1', 'max-area=4096'), '!', CUDA, '!', 'cudadownload', '!', 'fakesink')
    running = False
    thread.join()
    half = len(samples) // 2
    result('long', ok and half > 2 and max(samples[half:]) <= max(samples[:half]), f'{log}\n{samples}')


def main():
    if subprocess.run(['gst-inspect-1.0', '--exists', 'cudaupload'], capture_output=True).returncode:
        print('1..0 # SKIP no element cudaupload')
        return 77
    model = sys.argv[1]
    Path(f'{OUT}/frames.raw').touch()  # a pipeline that fails early leaves none
    for name in FORMATS:
        for w, h in SIZES: same(model, f'same/{name}-{w}x{h}', name, w, h)
    same(model, 'batch', 'NV12', 256, 192, 'batch-size=2')
    same(model, 'scaled', 'RGB', 256, 192, 'max-area=16384')
    mask = Path(__file__).resolve().parents[2] / 'examples/demo-model/photos/shapes_256.png'
    for name in ['RGBA', 'NV12']: same(model, f'mask/{name}', name, 319, 241, f'mask-path={mask}', 'mask-feather=4')
    # Masks made on the device, of a file and of the frame's alpha: grown, faded, inverted, their region alone.
    edges = [['mask-feather=4', 'mask-dilate=3'], ['region=crop', 'mask-feather=9'], ['mask-invert=true', 'mask-feather=1']]
    for name in ['RGB', 'RGBA', 'NV12', 'P010_10LE']:
        for (w, h), settings in zip(ODD, edges):
            same(model, f'masked/{name}-{w}x{h}', name, w, h, f'mask-path={mask}', *settings, ways=WAYS[:1])
            if name == 'RGBA':
                same(model, f'alpha/{name}-{w}x{h}', name, w, h, 'mask=alpha', *settings, ways=WAYS[:1])
    # Nobody behind the element has a context: cudaupload works in the engine's, which is not copied.
    ok, log = launch('videotestsrc', 'num-buffers=2', '!', 'cudaupload', '!', CUDA, '!', *edit(model), '!', CUDA, '!', 'fakesink')
    result('own-context', ok, log)
    long_stream(model)
    print(f'1..{number}')
    return 1 if failed else 0


sys.exit(main())
