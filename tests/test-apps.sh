#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The examples of applications: built and run, with the pixels that the tool gives.
. "$(dirname "$0")/tap.sh"
model=$FK_SOURCE/examples/demo-model/checkpoint
photo=$FK_SOURCE/examples/demo-model/photos/coffee_256.png
app=$FK_BUILD/examples/app-appsrc-appsink
few='steps=2 max-area=4096 seed=1 backend=cpu'
# A size whose rows are padded.
convert "$photo" -crop 61x40+70+60 +repage cup.png
convert cup.png -depth 8 cup.ppm

# shellcheck disable=SC2086
expect /apps/tool "$FK_BUILD/examples/fluxkontext-edit-image" -m "$model" -p 'make it night' cup.png want.png $few
# shellcheck disable=SC2086
expect /apps/appsrc-appsink/runs "$app" cup.ppm night.ppm model-path="$model" prompt='make it night' $few
[ "$(compare -metric AE night.ppm want.png null: 2>&1)" = 0 ]
check /apps/appsrc-appsink/same-pixels $?
"$app" cup.ppm none.ppm backend=cpu model-path=/nowhere >"$log" 2>&1
[ $? -eq 1 ] && grep -q '/nowhere' "$log" && [ ! -e none.ppm ]
check /apps/appsrc-appsink/error $?
head -c 100 cup.ppm >cut.ppm
"$app" cut.ppm none.ppm backend=null >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'cut.ppm' "$log"
check /apps/appsrc-appsink/cut-picture $?

python=
for candidate in python3 /usr/bin/python3; do
  "$candidate" -c 'import gi; gi.require_version("Gst", "1.0"); from gi.repository import Gst' 2>"$log" && python=$candidate && break
done
if [ -z "$python" ]; then
  skip /apps/python "python3-gi or gir1.2-gstreamer-1.0 is missing"
  done_testing
fi
head -c 2000 cup.png >cut.png
cp cup.png other.png
# shellcheck disable=SC2086
"$python" "$FK_SOURCE/examples/app/edit.py" out cup.png cut.png other.png -- model-path="$model" prompt='make it night' $few \
  >"$log" 2>&1
# In the words of the decoder; some end the stream without an error, and then it is the program that says so.
[ $? -eq 1 ] && grep -q '^cut.png: ' "$log" && ! grep -q '^cut.png: out/' "$log" && grep -qx 'other.png: out/other.png' "$log" &&
  [ ! -e out/cut.png ]
check /apps/python/says-which-file-is-cut $?
[ "$(compare -metric AE out/cup.png want.png null: 2>&1)" = 0 ] && cmp out/cup.png out/other.png >>"$log" 2>&1 && [ ! -e out/cut.png ]
check /apps/python/same-pixels $?
# Editors (GES) compare properties with their defaults.
expect /apps/python/engines-can-be-compared "$python" -c '
import gi
gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst
Gst.init(None)
spec = Gst.ElementFactory.make("fluxkontextedit").find_property("engine")
a, b = GObject.Value(spec.value_type), GObject.Value(spec.value_type)
assert Gst.value_compare(a, b) == Gst.VALUE_EQUAL'

# ---- The engine in a program of another language ----

if [ ! -e "$FK_BUILD/core/Fk-1.0.typelib" ]; then
  skip /apps/embedded "built without introspection"
  done_testing
fi
export GI_TYPELIB_PATH="$FK_BUILD/core" LD_LIBRARY_PATH="$FK_BUILD/core"
# shellcheck disable=SC2086
expect /apps/embedded/runs "$python" "$FK_SOURCE/examples/app/edit-embedded.py" cup.ppm embedded.ppm model-path="$model" \
  prompt='make it night' $few steps=6
# shellcheck disable=SC2086
"$FK_BUILD/examples/fluxkontext-edit-image" -m "$model" -p 'make it night' cup.png six.png $few steps=6 >"$log" 2>&1
[ "$(compare -metric AE embedded.ppm six.png null: 2>&1)" = 0 ]
check /apps/embedded/same-pixels $?
[ -s embedded.ppm.1.ppm ] && [ ! -e embedded.ppm.2.ppm ] && grep -q '"fluxkontext"' embedded.ppm.json
check /apps/embedded/preview-and-record $?
"$python" "$FK_SOURCE/examples/app/edit-embedded.py" cup.ppm none.ppm backend=cpu model-path=/nowhere >"$log" 2>&1
[ $? -eq 1 ] && grep -q '^model-path /nowhere' "$log" && ! grep -q Traceback "$log"
check /apps/embedded/error $?
expect /apps/embedded/objects "$python" -c '
import gi
gi.require_version("Fk", "1.0")
from gi.repository import Fk, Gio, GLib
settings, options = Fk.Settings.new(), Fk.Options.new()
settings.set("steps", "3")
assert settings.copy().get("steps") == "3" and settings.get("sigmas") == "auto"
Fk.set(options, settings, "backend", "null")
engine = Fk.Engine.new(options)
assert engine.output_size(settings, 64, 48) == (True, 64, 48)
assert "backend" in engine.active(settings)
picture = Fk.Picture.new(GLib.Bytes.new(bytes(64 * 48 * 4)), 64, 48, 4)
seen = []
result = engine.edit_picture(settings, picture, None, 1, lambda *event: seen.append(event))
assert result.get_channels() == 4 and result.get_evaluations() == 3
assert [event[1] for event in seen if event[3]] == [1, 2]
for wrong in ((GLib.Bytes.new(b"abc"), 64, 48, 3), (GLib.Bytes.new(b"abc"), 1, 1, 2), (GLib.Bytes.new(b""), 0, 0, 3)):
    try:
        Fk.Picture.new(*wrong)
        raise SystemExit("taken")
    except GLib.Error as error:
        assert error.matches(Fk.error_quark(), Fk.Error.OPTION_BAD) and "expected" in error.message
stop = Gio.Cancellable()
stop.cancel()
try:
    engine.edit_picture(settings, picture, stop, 0, None)
    raise SystemExit("not cancelled")
except GLib.Error as error:
    assert "cancelled" in error.message'

if "$python" -c 'import gi; gi.require_version("Gtk", "4.0"); from gi.repository import Gtk' 2>"$log" && command -v xvfb-run >/dev/null; then
  # shellcheck disable=SC2086
  expect /apps/gtk/edits timeout 120 xvfb-run -a "$python" "$FK_SOURCE/examples/app/edit-gtk.py" cup.png model-path="$model" \
    prompt='make it night' $few --once
  timeout 120 xvfb-run -a "$python" "$FK_SOURCE/examples/app/edit-gtk.py" cup.png backend=cpu model-path=/nowhere --once >"$log" 2>&1
  [ $? -eq 1 ] && grep -q '^model-path /nowhere' "$log"
  check /apps/gtk/error $?
else
  skip /apps/gtk "gir1.2-gtk-4.0 or xvfb is missing"
fi

done_testing
