#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Edits a picture with the engine inside this program: no pipeline, through the typelib Fk-1.0.

usage: edit-embedded.py IN.ppm OUT.ppm [property=value ...]
       edit-embedded.py in.ppm out.ppm model-path=FLUX.1-Kontext-dev prompt="make it night" seed=7

Prints the stages as they pass, and writes each preview beside the result: OUT.ppm.1.ppm, ... The record of the edit goes to
OUT.ppm.json. Needs python3-gi; uninstalled, `meson devenv -C build` finds the typelib. Exit status 1 with one line where
something failed.
"""
import sys

import gi

gi.require_version('Fk', '1.0')
from gi.repository import Fk, GLib  # noqa: E402

PREVIEW_EVERY = 4


def read_ppm(path):
    with open(path, 'rb') as file:
        data = file.read()
    words = data.split(None, 4)
    if len(words) < 5 or words[0] != b'P6' or words[3] != b'255':
        sys.exit(f'{path}: not a binary PPM of 8 bits')
    width, height = int(words[1]), int(words[2])
    return Fk.Picture.new(GLib.Bytes.new(data[len(data) - width * height * 3:]), width, height, 3)


def write_ppm(path, picture):
    with open(path, 'wb') as file:
        file.write(b'P6\n%d %d\n255\n' % (picture.get_width(), picture.get_height()))
        file.write(picture.get_pixels().get_data())


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:3]
    options, settings = Fk.Options.new(), Fk.Settings.new()
    previews = 0

    def watch(stage, current, total, preview):
        nonlocal previews
        if preview:
            previews += 1
            write_ppm(f'{target}.{previews}.ppm', preview)
        elif current == total:
            print(f'{stage}: {total}', flush=True)

    try:
        for pair in sys.argv[3:]:
            name, _, value = pair.partition('=')
            Fk.set(options, settings, name, value)
        picture = read_ppm(source)
        engine = Fk.Engine.open(options, None, None)
        print(engine.machine(), flush=True)
        result = engine.edit_picture(settings, picture, None, PREVIEW_EVERY, watch)
        write_ppm(target, result)
        with open(target + '.json', 'w', encoding='utf-8') as file:
            file.write(result.get_manifest())
    except GLib.Error as error:
        sys.exit(error.message)
    print(f'{target}: seed {result.get_seed()}, {result.get_evaluations()} evaluations, {result.get_edit_ms():.0f} ms')


main()
