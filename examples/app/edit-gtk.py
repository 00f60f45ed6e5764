#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A window that edits a photo: open one, say what to change, watch it happen, compare.

usage: edit-gtk.py [PHOTO] [property=value ...] [--once]
       edit-gtk.py photo.jpg model-path=FLUX.1-Kontext-dev prompt="make it night"

--once: edits the photo at once, prints one line, and ends: 0 edited, 1 an error. Needs python3-gi, gir1.2-gtk-4.0 and the
typelib Fk-1.0 (uninstalled: `meson devenv -C build`). The engine works in a thread of its own; what it reports is handed
to the window's thread by GLib.idle_add.
"""
import sys
import threading

import gi

gi.require_version('Fk', '1.0')
gi.require_version('Gdk', '4.0')
gi.require_version('Gtk', '4.0')
from gi.repository import Fk, Gdk, GdkPixbuf, Gio, GLib, Gtk  # noqa: E402


def read_photo(path):
    """An Fk.Picture in RGB, turned as its EXIF says."""
    pixbuf = GdkPixbuf.Pixbuf.new_from_file(path).apply_embedded_orientation()
    width, height, channels, stride = (pixbuf.get_width(), pixbuf.get_height(), pixbuf.get_n_channels(),
                                       pixbuf.get_rowstride())
    pixels = pixbuf.get_pixels()
    rows = b''.join(pixels[y * stride:y * stride + width * channels] for y in range(height))
    return Fk.Picture.new(GLib.Bytes.new(rows), width, height, channels)


def texture(picture):
    formats = {3: Gdk.MemoryFormat.R8G8B8, 4: Gdk.MemoryFormat.R8G8B8A8}
    channels = picture.get_channels()
    return Gdk.MemoryTexture.new(picture.get_width(), picture.get_height(), formats[channels], picture.get_pixels(),
                                 picture.get_width() * channels)


def side_by_side(before, after, share):
    """Left of `share` the one, right of it the other; of one size."""
    width, channels = after.get_width(), after.get_channels()
    row, cut = width * channels, int(width * share) * channels
    a, b = before.get_pixels().get_data(), after.get_pixels().get_data()
    rows = b''.join(a[y:y + cut] + b[y + cut:y + row] for y in range(0, row * after.get_height(), row))
    return Fk.Picture.new(GLib.Bytes.new(rows), width, after.get_height(), channels)


class Window(Gtk.ApplicationWindow):
    def __init__(self, application, options, settings, once):
        super().__init__(application=application, title='Edit a photo', default_width=560, default_height=640)
        self.options, self.settings, self.once = options, settings, once
        self.before = self.after = self.engine = self.cancellable = None
        self.failed = False
        self.picture = Gtk.Picture(vexpand=True, hexpand=True)
        self.slider = Gtk.Scale.new_with_range(Gtk.Orientation.HORIZONTAL, 0, 1, 0.01)
        self.slider.set_value(0.5)
        self.slider.set_sensitive(False)
        self.slider.connect('value-changed', lambda slider: self.compare())
        self.prompt = Gtk.Entry(hexpand=True, placeholder_text='What to change', text=settings.get('prompt') or '')
        self.prompt.connect('activate', lambda entry: self.start())
        self.button = Gtk.Button(label='Edit')
        self.button.connect('clicked', lambda button: self.cancellable.cancel() if self.cancellable else self.start())
        self.progress = Gtk.ProgressBar(show_text=True, text='Open a photo')
        header, line, box = Gtk.HeaderBar(), Gtk.Box(spacing=6), Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        opener = Gtk.Button(label='Open')
        opener.connect('clicked', lambda button: self.choose())
        header.pack_start(opener)
        self.set_titlebar(header)
        for widget in (self.prompt, self.button):
            line.append(widget)
        for side in ('top', 'bottom', 'start', 'end'):
            getattr(box, f'set_margin_{side}')(6)
        for widget in (self.picture, self.slider, line, self.progress):
            box.append(widget)
        self.set_child(box)

    def choose(self):
        self.chooser = Gtk.FileChooserNative(title='Open a photo', transient_for=self, action=Gtk.FileChooserAction.OPEN)
        self.chooser.connect('response', lambda chooser, response: response == Gtk.ResponseType.ACCEPT
                             and self.open(chooser.get_file().get_path()))
        self.chooser.show()

    def say(self, text, share=0.0):
        self.progress.set_text(text)
        self.progress.set_fraction(share)

    def open(self, path):
        if self.cancellable:
            return
        try:
            self.before, self.after = read_photo(path), None
        except GLib.Error as error:
            self.end(error.message)
            return
        self.slider.set_sensitive(False)
        self.picture.set_paintable(texture(self.before))
        self.say('Say what to change')

    def start(self):
        if not self.before or self.cancellable:
            return
        try:
            self.settings.set('prompt', self.prompt.get_text())
        except GLib.Error as error:
            self.end(error.message)
            return
        self.cancellable = Gio.Cancellable()
        self.button.set_label('Stop')
        self.slider.set_sensitive(False)
        # A copy: the thread's own, whatever the window changes meanwhile.
        threading.Thread(target=self.edit, args=(self.settings.copy(), self.before), daemon=True).start()

    def edit(self, settings, picture):
        """In the thread."""
        def watch(stage, current, total, preview):
            GLib.idle_add(self.show_step, stage, current, total, preview and texture(preview))
        try:
            if not self.engine:
                self.engine = Fk.Engine.new(self.options)
            result = self.engine.edit_picture(settings, picture, self.cancellable, 1, watch)
            GLib.idle_add(self.finish, result)
        except GLib.Error as error:
            GLib.idle_add(self.end, error.message)

    def show_step(self, stage, current, total, preview):
        if preview:
            self.picture.set_paintable(preview)
        else:
            names = {'open': 'Loading the model', 'text': 'Reading', 'encode': 'Looking', 'step': 'Step', 'decode': 'Painting'}
            count = f' {current} of {total}' if stage == 'step' else ''
            self.say(names.get(stage, stage) + count, current / total if total else 0)

    def finish(self, result):
        self.after = result
        same = (result.get_width(), result.get_height()) == (self.before.get_width(), self.before.get_height())
        self.slider.set_sensitive(same)
        self.end(f'{result.get_edit_ms() / 1000:.1f} s, seed {result.get_seed()}', failed=False)
        self.compare()

    def compare(self):
        if self.after and self.slider.get_sensitive():
            self.picture.set_paintable(texture(side_by_side(self.before, self.after, self.slider.get_value())))
        elif self.after:
            self.picture.set_paintable(texture(self.after))

    def end(self, text, failed=True):
        if failed and self.before:
            self.picture.set_paintable(texture(self.before))
        self.failed = failed
        self.cancellable = None
        self.button.set_label('Edit')
        self.say(text, 0 if failed else 1)
        if self.once:
            print(text, flush=True)
            self.close()


def main():
    words = sys.argv[1:]
    once = '--once' in words
    words = [word for word in words if word != '--once']
    photo = words.pop(0) if words and '=' not in words[0] else None
    options, settings, window = Fk.Options.new(), Fk.Settings.new(), None
    try:
        for pair in words:
            name, _, value = pair.partition('=')
            Fk.set(options, settings, name, value)
    except GLib.Error as error:
        sys.exit(error.message)

    def activate(application):
        nonlocal window
        window = Window(application, options, settings, once)
        window.present()
        if photo:
            window.open(photo)
        if once and photo and not window.failed:
            window.start()

    application = Gtk.Application(flags=Gio.ApplicationFlags.NON_UNIQUE)
    application.connect('activate', activate)
    application.run(None)
    return window is None or window.failed


sys.exit(main())
