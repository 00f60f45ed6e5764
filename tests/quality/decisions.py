#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether 8 bits change what a cache decides: settings NAME and NAME-SUFFIX of fluxkontext-quality, case by case.

usage: decisions.py SUFFIX RESULTS.jsonl..."""
import json
import sys


def main():
    if len(sys.argv) < 3: sys.exit(__doc__)
    masks = {}
    for path in sys.argv[2:]:
        with open(path) as f:
            for line in f:
                row = json.loads(line)
                masks.setdefault(row['setting'], {})[row['case']] = row['mask']
    for name in sorted(masks):
        other = masks.get(f'{name}-{sys.argv[1]}')
        if other is None: continue
        both = sorted(masks[name].keys() & other.keys())
        unlike = [c for c in both if masks[name][c] != other[c]]
        moved = [sum(a != b for a, b in zip(masks[name][c], other[c])) for c in unlike]
        print(f'{name:24s} {len(both) - len(unlike)} of {len(both)} alike' +
              (f', at most {max(moved)} evaluations apart: {" ".join(unlike[:6])}' if unlike else ''))


main()
