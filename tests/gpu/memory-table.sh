#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The memory table: forms of the weights against limits of device memory, one edit of 3 steps at 1024x1024 each.
#
#   usage: tests/gpu/memory-table.sh        within 170 s; needs fluxkontext-bench and fkcuda.so in the path, nvidia-smi
#
# Environment: CHECKPOINT (default /dev/shm/flux-kontext-random, as run-on-gpu.sh --full makes it), CELL (seconds for
# one cell, default 40), TOTAL (seconds for all, default 165). The cells that say most come first, a row each:
# milliseconds a step, peak of the device by nvidia-smi, bytes streamed in an evaluation by the plan, or why it does not
# run. A copy in pinned host memory is made once, which may take longer than the edit.
set -u
checkpoint=${CHECKPOINT:-/dev/shm/flux-kontext-random} cell=${CELL:-40} total=${TOTAL:-165}
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
begin=$(date +%s)
before=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0)

# Peak of the device until the cell's status is written, in MiB above what was taken before.
watch() {
  peak=0
  while [ ! -s "$scratch/status" ]; do
    now=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0)
    [ "$now" -gt "$peak" ] && peak=$now
    sleep 0.05
  done
  echo $((peak - before))
}

run_cell() { # WEIGHTS LIMIT
  left=$((total - ($(date +%s) - begin)))
  [ "$left" -gt "$cell" ] && left=$cell
  if [ "$left" -lt 5 ]; then
    echo "| $1 | $2 | no time left | | |"
    return
  fi
  set -- "$1" "$2" quantization="$1" text-quantization="$1" max-vram="$2"
  rm -f "$scratch/status" "$scratch/cell.json"
  (timeout -k 1 "$left" fluxkontext-bench -m "$checkpoint" -s 1024x1024 -n 1 --tflops=1 --tbs=1 \
    -j "$scratch/cell.json" backend=cuda steps=3 "$3" "$4" "$5" >"$scratch/log" 2>&1
    echo $? >"$scratch/status") &
  peak=$(watch)
  wait
  status=$(cat "$scratch/status")
  streamed=$(fluxkontext-doctor --plan 1024x1024 kontext-dev "$3" "$4" "$5" | sed -n 's/^offload=//p')
  if [ "$status" -eq 0 ]; then
    step=$(python3 -c 'import json, sys; print("%.1f ms" % json.load(open(sys.argv[1]))["step_ms"])' "$scratch/cell.json")
  elif [ "$status" -eq 124 ]; then
    step="longer than $left s"
  else
    step="no: $(tail -1 "$scratch/log" | sed 's/.*what fits: /fits: /' | cut -c 1-160)"
  fi
  echo "| $1 | $2 | $step | $peak MiB | $streamed |"
}

echo '| weights | max-vram | step | peak | planned |'
echo '| --- | --- | --- | --- | --- |'
run_cell none 0
run_cell none 24000000000
run_cell fp8 0
run_cell fp8 16000000000
run_cell none 12000000000
run_cell fp8 12000000000
run_cell none 16000000000
run_cell fp8 8000000000
