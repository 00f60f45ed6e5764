# SPDX-License-Identifier: Apache-2.0
"""Writes random.txt: what torch.randn draws, for tests/test-random.c.

cpu lines are torch's own bits: seed, n, SHA-256 of the little-endian float32 bytes, first and last value as hex words.
cuda lines come from a Philox and Box-Muller in NumPy double precision (no GPU needed): seed, offset, n,
multiprocessors, blocks per multiprocessor, element, value. They are exact in words and order, not in the last bits.

Run: python make_random.py > random.txt   (torch >= 2.13 on an x86-64 machine with AVX2, numpy)
"""
import hashlib

import numpy as np
import torch

SEEDS = (0, 42, 618854, 2**32 + 5, 2**64 - 1, 123456789)
COUNTS = (1, 2, 3, 5, 15, 16, 17, 31, 48, 100, 1000, 4096, 4099, 65536, 262144)
CUDA_CASES = (  # seed, offset, n, multiprocessors, blocks
    (42, 0, 8, 132, 8),
    (0, 0, 262144, 132, 8),
    (618854, 4, 262144, 132, 8),
    (2**63 + 11, 0, 1048653, 132, 8),
    (7, 2**34, 700001, 128, 6),
)


def philox(seed, offset, index):
    mask = np.uint64(0xFFFFFFFF)
    count = offset // 4
    c = [np.full_like(index, count & 0xFFFFFFFF), np.full_like(index, count >> 32), index & mask, index >> np.uint64(32)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [b >> np.uint64(32) ^ c[1] ^ np.uint64(k0), b & mask, a >> np.uint64(32) ^ c[3] ^ np.uint64(k1), a & mask]
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return c


def cuda_randn(seed, offset, n, sms, blocks):
    threads = 256 * min(-(-n // 256), sms * blocks)
    index = np.arange(threads, dtype=np.uint64)
    out = []
    for k in range(-(-n // (4 * threads))):
        words = philox(seed, offset + 4 * k, index)
        for x, y in (words[:2], words[2:]):
            u = (x.astype(np.float32) * np.float32(2**-32) + np.float32(2**-33)).astype(np.float64)
            step = float(np.float32(2 * np.pi)) * 2**-32
            v = y.astype(np.float32).astype(np.float64) * step + step / 2  # one rounding, as a fused multiply-add
            v = v.astype(np.float32).astype(np.float64)
            r = np.sqrt(-2 * np.log(u))
            out += [r * np.sin(v), r * np.cos(v)]
    return np.concatenate(out)[:n]


for seed in SEEDS:
    for n in COUNTS:
        g = torch.Generator().manual_seed(seed if seed < 2**63 else seed - 2**64)
        data = torch.randn(n, generator=g).numpy().astype("<f4")
        words = data.view("<u4")
        print("cpu", seed, n, hashlib.sha256(data.tobytes()).hexdigest(), f"{words[0]:08x} {words[-1]:08x}")
for case in CUDA_CASES:
    values = cuda_randn(*case)
    rng = np.random.default_rng(1)
    for i in sorted({0, len(values) - 1, *rng.integers(0, len(values), 30).tolist()}):
        print("cuda", *case, i, f"{values[i]:.9g}")
