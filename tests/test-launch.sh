#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gst-launch-1.0 as a user runs it, on the CPU with the demo model: one edit against the reference's pixels, exit codes
# and messages of what goes wrong, odd frames, presets, and the launch lines of the README on the null backend.
# Environment: FK_SOURCE, FK_BUILD, and the element's (tests/meson.build).
. "$(dirname "$0")/tap.sh"
model=$FK_SOURCE/examples/demo-model/checkpoint
photo=$FK_SOURCE/examples/demo-model/photos/coffee_256.png
# Leaked objects are warnings of the tracer, and so failures.
strict="env GST_TRACERS=leaks G_DEBUG=fatal-warnings"

# A source whose caps are refused adds an error of its own.
ours='^ERROR: from element .*fluxkontextedit'

# one_error NAME WORD...: the log holds one error of the element, and it names each word.
one_error() {
  name=$1
  shift
  status=0
  [ "$(grep -c "$ours" "$log")" -eq 1 ] || status=1
  for word in "$@"; do
    grep "$ours" "$log" | grep -qF -- "$word" || status=1
  done
  check "$name" $status
}

# ---- The main job ----

expect /launch/edit/runs $strict gst-launch-1.0 filesrc location="$photo" ! pngdec ! videoconvert ! \
  fluxkontextedit backend=cpu model-path="$model" prompt='make it night' seed=1 ! pngenc ! filesink location=night.png
grep -q 'Progress: (edit) step 28 of 28' "$log"
check /launch/edit/tells-every-step $?
# Largest difference of a channel, as compare prints it: "257 (0.00392157)" is 1/255.
compare -metric PAE night.png "$FK_SOURCE/tests/golden/edits/square-1.png" null: >"$log" 2>&1
sed 's/.*(\(.*\)).*/\1/' "$log" | awk '{exit !($1 != "" && $1 * 255 <= 2.001)}'
check /launch/edit/within-2-of-the-reference $?
compare -metric PSNR night.png "$FK_SOURCE/tests/golden/edits/square-1.png" null: >"$log" 2>&1
awk '{exit !($1 == "inf" || $1 >= 60)}' "$log"
check /launch/edit/60-dB $?

# ---- What goes wrong ----

gst-launch-1.0 videotestsrc num-buffers=1 ! fluxkontextedit backend=cpu model-path=/nowhere/model ! fakesink >"$log" 2>&1
test $? -ne 0
check /launch/wrong-path/exit-code $?
one_error /launch/wrong-path/one-message /nowhere/model

cp -r "$model" broken
shard=$(find broken/transformer -name '*00002*.safetensors')
truncate -s -1000 "$shard"
gst-launch-1.0 videotestsrc num-buffers=1 ! fluxkontextedit backend=cpu model-path=broken ! fakesink >"$log" 2>&1
test $? -ne 0
check /launch/truncated-shard/exit-code $?
one_error /launch/truncated-shard/one-message "$(basename "$shard")"

gst-launch-1.0 videotestsrc num-buffers=1 ! fluxkontextedit backend=cpu ! fakesink >"$log" 2>&1
test $? -ne 0
check /launch/no-path/exit-code $?
one_error /launch/no-path/one-message model-path

gst-launch-1.0 videotestsrc num-buffers=1 ! video/x-raw,width=8000,height=16 ! \
  fluxkontextedit backend=cpu model-path="$model" ! fakesink >"$log" 2>&1
test $? -ne 0
check /launch/extreme-aspect/exit-code $?
one_error /launch/extreme-aspect/one-message 8000x16

# ---- Odd frames ----

for size in 1x1 33x17; do
  expect "/launch/size-$size/runs" $strict gst-launch-1.0 videotestsrc num-buffers=1 ! \
    "video/x-raw,format=RGB,width=${size%x*},height=${size#*x}" ! \
    fluxkontextedit backend=cpu model-path="$model" steps=1 ! pngenc ! filesink location="$size.png"
  [ "$(identify -format %wx%h "$size.png" 2>"$log")" = "$size" ]
  check "/launch/size-$size/keeps-its-size" $?
done

# ---- Presets ----

expect /launch/preset/runs $strict gst-launch-1.0 videotestsrc num-buffers=1 ! \
  fluxkontextedit backend=null @preset='Quick look' ! fakesink
grep -q 'step 8 of 8' "$log"
check /launch/preset/has-its-steps $?
gst-launch-1.0 videotestsrc num-buffers=1 ! fluxkontextedit backend=null @preset='No such preset' ! fakesink >"$log" 2>&1
grep -q 'No such preset' "$log"
check /launch/preset/unknown-is-told $?

# preset=few-step has steps of its own, gives way wherever it stands, and says that it wants an adapter.
few() { # words...
  gst-launch-1.0 -m videotestsrc num-buffers=1 ! fluxkontextedit backend=null "$@" ! fakesink >"$log" 2>&1
}
few preset=few-step && grep -q 'step 4 of 4' "$log" &&
  grep -q 'loras has no effect: .*preset=few-step' "$log"
check /launch/preset/few-step $?
few preset=few-step steps=28 && grep -q 'step 28 of 28' "$log"
check /launch/preset/steps-behind $?
few steps=28 preset=few-step && grep -q 'step 28 of 28' "$log"
check /launch/preset/steps-before $?

# ---- The README's lines, with the null backend, test pictures and no camera ----

for i in 0 1 2; do
  gst-launch-1.0 -q videotestsrc num-buffers=1 ! video/x-raw,width=$((64 + 16 * i)),height=48 ! pngenc ! \
    filesink location=in-00$i.png >"$log" 2>&1
done
cp in-000.png in.png
gst-launch-1.0 -q videotestsrc num-buffers=6 ! video/x-raw,width=64,height=48 ! vp8enc ! webmmux ! \
  filesink location=in.webm >"$log" 2>&1
blocks=$(awk '/^```sh/ {b++; f = "line-" b ".sh"; next} /^```/ {f = ""} f {print > f} END {print b + 0}' \
  "$FK_SOURCE/README.md")
[ "$blocks" -ge 6 ]
check /launch/readme/has-lines $?
gst-launch-1.0 -q videotestsrc num-buffers=1 ! video/x-raw,width=64,height=48 ! jpegenc ! filesink location=in.jpg >"$log" 2>&1
for b in $(seq 1 "$blocks"); do
  sed -i -e 's/model-path=[^ ]*/backend=null steps=2/' -e 's/v4l2src/videotestsrc is-live=true num-buffers=3/' \
    -e 's/autovideosink/fakesink/' "line-$b.sh"
  if grep -q jpegparse "line-$b.sh" && ! gst-inspect-1.0 --exists jpegparse; then
    skip "/launch/readme/line-$b" "jpegparse is missing"
    continue
  fi
  if grep -q ges-launch "line-$b.sh"; then
    # It prints no progress: the file says that it worked.
    if command -v ges-launch-1.0 >"$log"; then
      sh "line-$b.sh" >"$log" 2>&1 && [ -s edited.webm ]
      check "/launch/readme/line-$b" $?
    else
      skip "/launch/readme/line-$b" "ges-launch-1.0 is missing"
    fi
    continue
  fi
  sh "line-$b.sh" >"$log" 2>&1
  status=$?
  grep -q '^ERROR\|CRITICAL\|^WARNING: err' "$log" && status=1
  grep -q 'Progress: (edit) step' "$log" || status=1
  check "/launch/readme/line-$b" $status
done
for f in out.png out-000.png out-002.png out.webm night.png sepia.png; do
  expect "/launch/readme/wrote-$f" test -s $f
done

done_testing
