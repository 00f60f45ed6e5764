#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What gcov counted in a build, for each folder of core/ and for gst/, and for what parses files.

usage: coverage.py BUILD [FILE...]      FILE: print the lines of these that were not run
Exit status 1: a row is below its target.
"""
import collections
import json
import os
import subprocess
import sys

# What must be run, in percent of lines.
TARGETS = {'core': 85, 'gst': 85, 'parsers': 95}
PARSERS = ('config', 'config-text', 'gguf', 'image-file', 'image-jpeg', 'image-png', 'json-scan', 'lora', 'lora-file', 'lora-names',
           'names', 'quant-marks', 'safetensors', 'shapes', 'tokenizer-bpe', 'tokenizer-charsmap', 'tokenizer-clip',
           'tokenizer-graphemes', 'tokenizer-special', 'tokenizer-t5', 'tokenizer-trie', 'types')


def count_lines(build):
    """{file: {line: count}}. Objects of one source in several programs are added."""
    lines = collections.defaultdict(collections.Counter)
    root = os.getcwd()
    # Notes, not counts: what no program ran has notes alone.
    objects = [os.path.abspath(os.path.join(folder, name)) for part in ('core', 'gst', 'tests')
               for folder, _, names in os.walk(os.path.join(build, part)) for name in names if name.endswith('.gcno')]
    objects = [p for p in objects if '/tests/' not in p or '_gst_' in p or '_core_' in p]
    reports = subprocess.run(['gcov', '--json-format', '--stdout', *objects], check=True, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL).stdout
    for report in map(json.loads, reports.splitlines()):
        for source in report['files']:
            name = os.path.relpath(os.path.join(report['current_working_directory'], source['file']), root)
            if not name.startswith(('core/', 'gst/')) or not name.endswith(('.c', '.cc')):
                continue
            for line in source['lines']:
                lines[name][line['line_number']] += line['count']
    return lines


def share(lines, names):
    run = sum(1 for n in names for c in lines[n].values() if c)
    return run, sum(len(lines[n]) for n in names)


def main():
    lines = count_lines(sys.argv[1])
    folders = collections.defaultdict(list)
    for name in sorted(lines):
        folders[os.path.dirname(name)].append(name)
        if name.startswith('core/'):
            folders['core (all)'].append(name)
        if os.path.splitext(os.path.basename(name))[0] in PARSERS:
            folders['parsers'].append(name)
    below = 0
    print('folder        lines  not run   percent  target')
    for folder in sorted(folders):
        run, total = share(lines, folders[folder])
        target = TARGETS.get(folder.split(' ')[0].split('/')[0])
        low = 100 * run < target * total
        below += low
        print(f'{folder:12} {total:6} {total - run:8} {100 * run / total:9.1f}  {target:6}{"  below" if low else ""}')
    print('\nlines not run, of files with the most:')
    worst = sorted(lines, key=lambda n: (share(lines, [n])[0] - share(lines, [n])[1], n))
    for name in worst[:20]:
        run, total = share(lines, [name])
        print(f'{total - run:5} of {total:4}  {name}')
    for name in sys.argv[2:]:
        text = open(name, encoding='utf-8').read().splitlines()
        print(f'\n{name}')
        for number in sorted(n for n, c in lines[name].items() if not c):
            print(f'{number:5}  {text[number - 1]}')
    sys.exit(below > 0)


main()
