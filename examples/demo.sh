#!/bin/sh
# The main job on any Debian 12 machine, with or without a GPU: installs what is missing, builds, edits a real photograph
# three times through gst-launch-1.0 with the demo checkpoint, and puts the results side by side.
#   usage: examples/demo.sh [OUTPUT-FOLDER]        (default: demo-output)
set -eu
cd "$(dirname "$0")/.."
out=${1:-demo-output}
photo=examples/demo-model/photos/coffee_256.png
./examples/install-deps.sh

if [ ! -f build/demo/build.ninja ]; then
  mkdir -p build
  echo "building ..."
  meson setup build/demo -Dtests=false --buildtype=release >build/demo-setup.log 2>&1 ||
    { tail -20 build/demo-setup.log; exit 1; }
fi
ninja -C build/demo >build/demo-build.log 2>&1 || { tail -40 build/demo-build.log; exit 1; }
mkdir -p "$out"
export GST_PLUGIN_PATH="$PWD/build/demo/gst" FK_MODULE_DIR="$PWD/build/demo/kernels"

edit() { # name, prompt
  echo
  echo "== $2"
  start=$(date +%s.%N)
  gst-launch-1.0 filesrc location="$photo" ! pngdec ! videoconvert ! \
    fluxkontextedit model-path=examples/demo-model/checkpoint prompt="$2" ! \
    pngenc ! filesink location="$out/$1.png" >"$out/$1.log" 2>&1 || { cat "$out/$1.log"; exit 1; }
  grep -c '^Progress: (edit) step' "$out/$1.log" | sed 's/$/ steps/'
  echo "$start $(date +%s.%N)" | awk '{printf "%.1f s with start-up and loading\n", $2 - $1}'
}
edit night 'make it look like night time'
edit sketch 'turn it into a pencil sketch'
edit frame 'Make it black and white, then add a red frame.'

montage -font DejaVu-Sans -pointsize 13 -background white -geometry 256x256+6+6 -tile 4x1 \
  -label 'photograph' "$photo" -label 'make it look like night time' "$out/night.png" \
  -label 'turn it into a pencil sketch' "$out/sketch.png" \
  -label 'Make it black and white,\nthen add a red frame.' "$out/frame.png" "$out/side-by-side.png"
echo
echo "results: $out/night.png $out/sketch.png $out/frame.png"
echo "side by side: $out/side-by-side.png"
