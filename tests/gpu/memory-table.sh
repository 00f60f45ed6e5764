#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The memory table: forms of the weights against limits of device memory, one edit of 3 steps at 1024x1024 each.
#
#   usage: tests/gpu/memory-table.sh        within 200 s; needs fluxkontext-bench and fkcuda.so in the path, nvidia-smi
#
# Environment: CHECKPOINT (default /dev/shm/flux-kontext-random, as run-on-gpu.sh --full makes it), CELL (seconds for
# one cell, default 18). A cell: milliseconds a step, peak of the device by nvidia-smi, or why it does not run.
set -u
checkpoint=${CHECKPOINT:-/dev/shm/flux-kontext-random} cell=${CELL:-18}
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
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

run_cell() { # LIMIT SETTINGS...
  limit=$1 && shift
  rm -f "$scratch/status"
  (timeout -k 1 "$cell" fluxkontext-bench -m "$checkpoint" -s 1024x1024 -n 1 --tflops=1 --tbs=1 \
    -j "$scratch/cell.json" backend=cuda max-vram="$limit" steps=3 "$@" >"$scratch/log" 2>&1
    echo $? >"$scratch/status") &
  peak=$(watch)
  wait
  status=$(cat "$scratch/status")
  if [ $status -eq 0 ]; then
    step=$(python3 -c 'import json, sys; print("%.1f" % json.load(open(sys.argv[1]))["step_ms"])' "$scratch/cell.json")
    printf '| %s ms, %s MiB ' "$step" "$peak"
  elif [ $status -eq 124 ]; then
    printf '| longer than %s s ' "$cell"
  else
    printf '| no: %s ' "$(tail -1 "$scratch/log" | sed 's/.*what fits: /fits: /' | cut -c 1-160)"
  fi
  rm -f "$scratch/cell.json"
}

echo '| weights | no limit | 24 GB | 16 GB | 12 GB | 8 GB |'
echo '| --- | --- | --- | --- | --- | --- |'
for form in none fp8; do
  printf '| %s ' "$form"
  for limit in 0 24000000000 16000000000 12000000000 8000000000; do
    run_cell "$limit" quantization=$form text-quantization=$form
  done
  echo '|'
done
