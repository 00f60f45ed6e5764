#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Edits pictures one after the other with one loaded model, and says of each what became of it.

usage: edit.py OUTPUT-FOLDER PICTURE... [-- property=value ...]
       edit.py edited *.png -- model-path=FLUX.1-Kontext-dev prompt="make it night" seed=7

Some decoders end their stream without an error when a file is cut: a picture counts as edited when a frame came out. Needs
python3-gi and gir1.2-gstreamer-1.0. Exit status 1 if any picture failed.
"""
import os
import sys

import gi

gi.require_version('Gst', '1.0')
from gi.repository import Gst  # noqa: E402

# The decoder's pad comes anew with each file: it is linked by hand, since a launch line links it once.
PIPELINE = ('filesrc name=source ! decodebin name=decode '
            'videoconvert name=convert ! fluxkontextedit name=edit keep-loaded=true ! videoconvert ! pngenc ! filesink name=sink')


def edit(pipeline, picture, result):
    """None, or what went wrong."""
    pipeline.get_by_name('source').set_property('location', picture)
    pipeline.get_by_name('sink').set_property('location', result)
    pipeline.set_state(Gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.ERROR | Gst.MessageType.EOS)
    # keep-loaded: the weights stay, and files may be changed in NULL only.
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        return message.parse_error()[0].message
    return None if os.path.getsize(result) else 'no picture came out: the file is damaged or cut'


def main():
    words = sys.argv[1:]
    split = words.index('--') if '--' in words else len(words)
    if split < 2:
        sys.exit(__doc__)
    folder, pictures, pairs = words[0], words[1:split], words[split + 1:]
    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE)
    entry = pipeline.get_by_name('convert').get_static_pad('sink')
    decode = pipeline.get_by_name('decode')
    handler = decode.connect('pad-added', lambda decode, pad: pad.link(entry))
    for pair in pairs:
        name, _, value = pair.partition('=')
        Gst.util_set_object_arg(pipeline.get_by_name('edit'), name, value)
    os.makedirs(folder, exist_ok=True)
    failed = False
    for picture in pictures:
        result = os.path.join(folder, os.path.splitext(os.path.basename(picture))[0] + '.png')
        error = edit(pipeline, picture, result)
        print(f'{picture}: {error or result}', flush=True)
        if error:
            failed = True
            if os.path.exists(result):
                os.remove(result)
    pipeline.set_state(Gst.State.NULL)
    decode.disconnect(handler)  # GStreamer's own threads may free the decoder after Python has ended
    return failed


sys.exit(main())
