#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads what hash-module.so wrote (op, shape, hash; one line an op) and compares the edits of the process with each
other: usage hashes.py FILE. An edit begins where pixels go in (from_u8). Prints for each edit that differs its first op
with other bytes than most edits have; exit status 1 if there is one."""
import collections
import sys

ops = [line.rstrip('\n').split('\t') for line in open(sys.argv[1])]
starts = [i for i, op in enumerate(ops) if op[0] == 'from_u8']
edits = [ops[a:b] for a, b in zip(starts, starts[1:] + [len(ops)])]
if len(edits) < 3:
    sys.exit(f'{len(edits)} edits: too few to compare')
length = collections.Counter(len(e) for e in edits).most_common(1)[0][0]
edits = [e for e in edits if len(e) == length]
usual = [collections.Counter(e[i][2] for e in edits).most_common(1)[0][0] for i in range(length)]
kinds = collections.Counter()
for n, edit in enumerate(edits):
    other = [i for i in range(length) if edit[i][2] != usual[i]]
    if other:
        op, shape, _ = edit[other[0]]
        kinds[op, shape] += 1
        print(f'edit {n}: {len(other)} of {length} ops differ, the first is number {other[0]}: {op} {shape}')
one = sum(len({e[i][2] for e in edits}) == 1 for i in range(length))
print(f'{len(edits)} edits of {length} ops: {one} ops have one hash')
sys.exit(1 if kinds else 0)
