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

# Allocators keep what they had and the threads of two runs meet their peaks at other moments: two equal runs are up to 2 MB apart. So half
# of what a leak of one frame's buffer (48 kB) a frame would be is the bound, and one of three pairs has to keep it: a leak is in each.
flat=1
for try in 1 2 3; do
  rm -rf few first
  run 50 few
  check /soak/50-frames-run/$try $?
  early=$peak
  run "$many" first
  check /soak/many-frames-run/$try $?
  echo "# peak memory with 50 frames $early kB, with $many $peak kB"
  [ -n "$early" ] && [ -n "$peak" ] && [ $((peak - early)) -lt $(((many - 50) * 24)) ] && flat=0 && break
done
check /soak/memory-is-flat $flat
[ "$(find first -name '*.rgb' | wc -l)" -eq "$many" ]
check /soak/many-frames $?
sha256sum first/*.rgb | cut -d' ' -f1 | sort | uniq -c >"$log"
[ "$(wc -l <"$log")" -eq 1 ]
check /soak/one-hash $?
for process in second third; do
  run 2 $process
  cmp first/0000.rgb $process/0001.rgb >"$log" 2>&1
  check "/soak/$process-process/same-bytes" $?
done

done_testing
