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
[ $? -eq 1 ] && grep -q '^cut.png: no picture' "$log"
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

done_testing
