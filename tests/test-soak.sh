#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two hundred frames of 128x128 through one pipeline on the CPU: memory stays flat, the same frame has the same bytes in
# every position, and in three separate processes.
. "$(dirname "$0")/tap.sh"
model=$FK_SOURCE/examples/demo-model/checkpoint
photo=$FK_SOURCE/examples/demo-model/photos/coffee_256.png

resident() { awk '/^VmRSS/ {print $2}' "/proc/$1/status" 2>/dev/null; }

# run FRAMES FOLDER: the same frame, edited so many times; raw results of each in the folder.
run() {
  mkdir "$2"
  exec gst-launch-1.0 -q filesrc location="$photo" ! pngdec ! videoconvert ! videoscale ! \
    video/x-raw,format=RGB,width=128,height=128 ! imagefreeze num-buffers="$1" ! \
    fluxkontextedit backend=cpu model-path="$model" max-area=16384 steps=2 prompt='add a shape' seed=3 progress=false ! \
    multifilesink location="$2/%03d.rgb"
}

(run 200 first) >"$log" 2>&1 &
child=$!
early=
late=
while kill -0 $child 2>/dev/null; do
  if [ -z "$early" ] && [ -e first/050.rgb ]; then early=$(resident $child); fi
  if [ -z "$late" ] && [ -e first/190.rgb ]; then late=$(resident $child); fi
  sleep 0.05
done
wait $child
check /soak/runs $?
[ "$(find first -name '*.rgb' | wc -l)" -eq 200 ]
check /soak/200-frames $?
echo "# resident memory after 50 frames $early kB, after 190 $late kB"
# Allocators keep what they had: a frame's buffers are 48 kB, so a leak of one a frame would be 6.9 MB here.
[ -n "$early" ] && [ -n "$late" ] && [ $((late - early)) -lt 2048 ]
check /soak/memory-is-flat $?
sha256sum first/*.rgb | cut -d' ' -f1 | sort | uniq -c >"$log"
[ "$(wc -l <"$log")" -eq 1 ]
check /soak/one-hash $?
for process in second third; do
  (run 2 $process) >"$log" 2>&1
  cmp first/000.rgb $process/001.rgb >"$log" 2>&1
  check "/soak/$process-process/same-bytes" $?
done

done_testing
