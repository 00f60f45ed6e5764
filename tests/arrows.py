#!/usr/bin/env python3
"""Checks that the folders of the project include each other in one direction only, and prints who includes whom.

usage: tests/arrows.py            TAP; the last case's comment lines are the arrows with their number of includes
"""
import re, subprocess, sys
from collections import Counter
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
# From a folder to the folders that it may include. core/fk.h is the public header: gst and examples see nothing else, and
# what it declares may be defined on every floor below.
MAY = {
    'gst': {'core'}, 'examples': {'core'}, 'examples/batch': {'examples', 'core'},
     'examples/server': {'examples', 'core'},
    'core': {'core/settings', 'core/text', 'core/model', 'core/files', 'core/ops'},
    'core/settings': {'core/model', 'core/files', 'core/ops'},
    'core/text': {'core/files', 'core/ops'}, 'core/model': {'core/files', 'core/ops'},
    'core/files': {'core/ops'}, 'core/ops': set(), 'kernels': {'core/ops'},
}
PUBLIC = {'fk.h', 'fk-error.h'}


def sources():
    for folder in MAY:
        for path in sorted((TOP / folder).iterdir()):
            if path.suffix in ('.c', '.cc', '.h', '.cu', '.cuh'): yield folder, path


def main():
    home = {path.name: folder for folder, path in sources() if path.suffix in ('.h', '.cuh')}
    arrows, wrong = Counter(), []
    files = {}  # source -> stems of the headers that it includes, for circles among sources
    for folder, path in sources():
        heads = [Path(h).name for h in re.findall(r'#include ["<]([^">]+)[">]', path.read_text(errors='replace'))]
        heads = [h for h in heads if h in home]
        if path.suffix in ('.c', '.cc', '.cu'): files[path.stem] = {Path(h).stem for h in heads} - {path.stem}
        for h in heads:
            to = home[h]
            if to == folder or (h in PUBLIC and folder.startswith('core/')): continue
            arrows[(folder, to)] += 1
            private = folder.split('/')[0] in ('gst', 'examples') and to.startswith('core') and h not in PUBLIC
            if to not in MAY[folder] or private: wrong.append(f'{path.relative_to(TOP)} includes {h} of {to}')
    circles = sorted({' <-> '.join(sorted((a, b))) for a in files for b in files[a] if a in files.get(b, ())})
    print('TAP version 13\n1..2')
    for text in wrong: print(f'# {text}')
    print(('not ok' if wrong else 'ok') + ' 1 /arrows/folders')
    for text in circles: print(f'# {text}')
    print(('not ok' if circles else 'ok') + ' 2 /arrows/circles')
    for (a, b), n in sorted(arrows.items()): print(f'# {a} -> {b}: {n}')
    return 0


sys.exit(main())
