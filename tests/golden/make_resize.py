# SPDX-License-Identifier: Apache-2.0
"""Writes resize.txt: SHA-256 of Pillow 13's LANCZOS results, for tests/test-image.c.

Input bytes come from an integer recurrence that both languages run: x = x * 1664525 + 1013904223 mod 2^32 from
seed = width * 65536 + height, byte = x >> 24; pattern 1 makes them 0 or 255 (overshoot on both sides).

Run: python make_resize.py > resize.txt   (Pillow 13)
"""
import hashlib
import random

import PIL
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image

assert PIL.__version__.startswith("13."), PIL.__version__

SIZES = (  # width, height -> width, height
    (1, 1, 16, 16), (1, 1, 1, 1), (16, 16, 1, 1), (1, 100, 7, 3), (100, 1, 3, 7), (2, 3, 5, 4), (33, 17, 32, 16),
    (100, 75, 64, 48), (64, 48, 100, 75), (333, 517, 672, 1568), (997, 3, 16, 32), (17, 1000, 1568, 672),
    (50, 50, 50, 80), (50, 50, 50, 20), (50, 50, 80, 50), (50, 50, 20, 50), (100, 100, 90, 79), (100, 100, 90, 80),
    (100, 300, 67, 157), (1080, 2400, 688, 1504), (600, 400, 304, 208), (304, 208, 600, 400), (640, 480, 640, 479),
    (255, 257, 256, 256), (300, 300, 304, 299), (301, 299, 299, 301), (1920, 1080, 1360, 768), (15, 15, 15, 15),
)
MODES = {1: "L", 3: "RGB", 4: "RGBX"}  # RGBX: four channels, none of them alpha


def pixels(w, h, channels, pattern):
    x = w * 65536 + h
    out = bytearray(w * h * channels)
    for i in range(len(out)):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = x >> 24 if not pattern else 255 * (x >> 31)
    return bytes(out)


for number, (w, h, tw, th) in enumerate(SIZES):
    large = w * h > 300000
    for channels in (3,) if large else (1, 3, 4):
        for pattern in (number % 2,) if large else (0, 1):
            image = Image.frombytes(MODES[channels], (w, h), pixels(w, h, channels, pattern))
            result = image.resize((tw, th), Image.LANCZOS).tobytes()
            print(w, h, tw, th, channels, pattern, hashlib.sha256(result).hexdigest())

random.seed(3)
for number in range(400):
    w, h = (int(2 ** random.uniform(4, 12.5)) for _ in range(2))
    area = 1048576 if number % 2 else random.randint(65536, 2000000)
    ratio = w / h
    target = [round(side**0.5) // 16 * 16 for side in (area * ratio, area / ratio)]
    if min(target) < 16:
        continue
    ratio = (w - w % 16) / (h - h % 16)
    preferred = min((abs(ratio - a / b), a, b) for a, b in PREFERRED_KONTEXT_RESOLUTIONS)[1:]
    print("size", w, h, area, *target, *preferred)
