#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Many frames of 128x128 through one pipeline on the CPU (FK_TEST_COUNT; 200): memory stays flat, the same frame has the same bytes in
# every position, and in three separate processes.
. "$(dirname "$0")/tap.sh"
model=$FK_SOURCE/examples/demo-model/checkpoint
many=${FK_TEST_COUNT:-200}
photo=$FK_SOURCE/examples/demo-model/photos/coffee_256.png

# run FRAMES FOLDER: the same frame, edited so many times; raw results of each in the folder, peak memory in kB in $peak.
run() {
  mkdir "$2"
  python3 -c 'import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print("peak", usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) != 0)' \
    gst-launch-1.0 -q filesrc location="$photo" ! pngdec ! videoconvert ! videoscale ! \
    video/x-raw,format=RGB,width=128,height=128 ! imagefreeze num-buffers="$1" ! \
    fluxkontextedit backend=cpu model-path="$model" max-area=16384 steps=2 prompt='add a shape' seed=3 progress=false ! \
    multifilesink location="$2/%04d.rgb" >"$log" 2>&1
  status=$?
  peak=$(awk '$1 == "peak" {print $2}' "$log")
  return $status
}

run 50 few
check /soak/50-frames-run $?
early=$peak
run "$many" first
check /soak/many-frames-run $?
late=$peak
[ "$(find first -name '*.rgb' | wc -l)" -eq "$many" ]
check /soak/many-frames $?
echo "# peak memory with 50 frames $early kB, with $many $late kB"
# Allocators keep what they had: a frame's buffers are 48 kB, so a leak of one a frame would be 7.2 MB here.
[ -n "$early" ] && [ -n "$late" ] && [ $((late - early)) -lt 2048 ]
check /soak/memory-is-flat $?
sha256sum first/*.rgb | cut -d' ' -f1 | sort | uniq -c >"$log"
[ "$(wc -l <"$log")" -eq 1 ]
check /soak/one-hash $?
for process in second third; do
  run 2 $process
  cmp first/0000.rgb $process/0001.rgb >"$log" 2>&1
  check "/soak/$process-process/same-bytes" $?
done

done_testing
