#!/bin/sh
# The main job on any Debian 12 machine, with or without a GPU: installs what is missing, builds, edits a real photograph
# three times through gst-launch-1.0 with the demo checkpoint, and puts the results side by side.
#   usage: examples/demo.sh [OUTPUT-FOLDER]        (default: demo-output)
set -eu
cd "$(dirname "$0")/.."
out=${1:-demo-output}
photo=examples/demo-model/photos/coffee_256.png
./examples/install-deps.sh
. ./examples/step.sh
mkdir -p build "$out"

[ -f build/demo/build.ninja ] ||
  step "configuring in build/demo" build/demo-setup.log meson setup build/demo -Dtests=false --buildtype=release
step "building" build/demo-build.log ninja -C build/demo
export GST_PLUGIN_PATH="$PWD/build/demo/gst" FK_MODULE_DIR="$PWD/build/demo/kernels"

edit() { # name, prompt
  step "editing: $2" "$out/$1.log" gst-launch-1.0 filesrc location="$photo" ! pngdec ! videoconvert ! \
    fluxkontextedit model-path=examples/demo-model/checkpoint prompt="$2" ! pngenc ! filesink location="$out/$1.png"
}
edit thermal 'make it look like a thermal camera'
edit painting 'turn it into an oil painting'
edit frame 'add a blue frame'

montage -font DejaVu-Sans -pointsize 13 -background white -geometry 256x256+6+6 -tile 4x1 \
  -label 'photograph' "$photo" -label 'make it look like a thermal camera' "$out/thermal.png" \
  -label 'turn it into an oil painting' "$out/painting.png" -label 'add a blue frame' "$out/frame.png" "$out/side-by-side.png"
echo
echo "results: $out/thermal.png $out/painting.png $out/frame.png"
echo "side by side: $out/side-by-side.png"
