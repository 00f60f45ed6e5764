#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The memory table: forms of the weights against limits of device memory, one edit of 3 steps at 1024x1024 each.
#
#   usage: tests/gpu/memory-table.sh        needs fluxkontext-bench, fluxkontext-doctor and fkcuda.so in the path, nvidia-smi
#
# Environment: CHECKPOINT (default /dev/shm/flux-kontext-random, as run-on-gpu.sh --full makes it), CELL (seconds for one
# cell, default 60), TOTAL (seconds for all, default 580), ROWS (default "Q4_K Q8_0 fp8 fp8-file none"), LIMITS (GB,
# default "8 12 16 24 0"; 0: none), SETTINGS (more properties of every cell, "weight-storage=file expand-ahead=on"), BACKEND (default
# cuda; null walks, without a device and its peak, and takes CHECKPOINT=kontext-dev, the published sizes without files).
#
# The rows none and fp8 are quantization= and text-quantization= of the checkpoint, fp8-all has modulation-quantization=fp8
# too, fp8-mod that and no text-quantization; the others are files that
# tests/coded-model.py writes in its shapes, beside it and one at a time: as fast as the RAM disk takes bytes (7 to 18 GB).
# A cell has milliseconds a step, the device's peak by nvidia-smi in MiB above what was taken before, and the plan:
# placement, bytes that stream, host memory; or why it does not run. The least of what is left comes first, so that a
# run that ends early has said most. A copy in pinned host memory is made once, which may take longer than the edit.
set -u
checkpoint=${CHECKPOINT:-/dev/shm/flux-kontext-random} cell=${CELL:-60} total=${TOTAL:-580} backend=${BACKEND:-cuda}
rows=${ROWS:-Q4_K Q8_0 fp8 fp8-file none} limits=${LIMITS:-8 12 16 24 0}
coded=$(dirname "$0")/../coded-model.py
scratch=$(mktemp -d) && made=$(mktemp -d "$(dirname "$checkpoint")/coded-XXXXXX") && trap 'rm -rf "$scratch" "$made"' EXIT
begin=$(date +%s)
taken() {
  if [ "$backend" = cuda ]; then nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i "${CUDA_VISIBLE_DEVICES:-0}"; else echo 0; fi
}
before=$(taken)

# Peak of the device until the cell's status is written, in MiB above what was taken before.
watch() {
  peak=0
  while [ ! -s "$scratch/status" ]; do
    now=$(taken)
    [ "$now" -gt "$peak" ] && peak=$now
    sleep 0.05
  done
  echo $((peak - before))
}

# Options of a row, one a line, into $scratch/options; the first is the model.
choose() {
  case $1 in
    none | fp8) printf '%s\n' "$checkpoint" "quantization=$1" "text-quantization=$1" ;;
    fp8-all) printf '%s\n' "$checkpoint" quantization=fp8 text-quantization=fp8 modulation-quantization=fp8 ;;
    fp8-mod) printf '%s\n' "$checkpoint" quantization=fp8 modulation-quantization=fp8 ;;
    *)
      form=$1
      if [ ! -d "$checkpoint" ]; then
        [ "$form" = fp8-file ] && form=F8_E4M3
        echo "$checkpoint:$form"
        return
      fi
      [ "$form" = fp8-file ] && form=fp8
      rm -f "$made"/*
      python3 "$coded" "$checkpoint" "$made" "$form" >"$scratch/log" 2>&1 || return 1
      ls "$made/$form"-flux.*
      printf '%s\n' "t5-path=$(ls "$made/$form"-t5.*)" "vae-path=$checkpoint/vae" "clip-path=$checkpoint/text_encoder" \
        "tokenizer-path=$checkpoint"
      ;;
  esac
}

run_cell() { # ROW GB
  left=$((total - ($(date +%s) - begin)))
  [ "$left" -gt "$cell" ] && left=$cell
  if [ "$left" -lt 5 ]; then
    echo "| $1 | $2 | no time left | | |"
    return
  fi
  row=$1 gb=$2
  set --
  model=
  while read -r line; do
    if [ -z "$model" ]; then model=$line; else set -- "$@" "$line"; fi
  done <"$scratch/options"
  # shellcheck disable=SC2086
  set -- "$@" "max-vram=${gb}000000000" ${SETTINGS:-}
  rm -f "$scratch/status" "$scratch/cell.json"
  (timeout -k 1 "$left" fluxkontext-bench -m "$model" -s 1024x1024 -n 1 --tflops=1 --tbs=1 -j "$scratch/cell.json" \
    backend="$backend" steps=3 "$@" >"$scratch/log" 2>&1
    echo $? >"$scratch/status") &
  peak=$(watch)
  wait
  status=$(cat "$scratch/status")
  planned=$(fluxkontext-doctor --plan 1024x1024 "$model" "$@" 2>/dev/null | sed -n 's/^offload=//p')
  if [ "$status" -eq 0 ]; then
    step=$(python3 -c 'import json, sys; print("%.1f ms" % json.load(open(sys.argv[1]))["step_ms"])' "$scratch/cell.json")
  elif [ "$status" -eq 124 ]; then
    step="longer than $left s"
  else
    step="no: $(tail -1 "$scratch/log" | sed 's/.*what fits: /fits: /' | cut -c 1-160)"
  fi
  echo "| $row | $gb | $step | $peak MiB | $planned |"
}

echo '| weights | max-vram, GB | step | peak | planned |'
echo '| --- | --- | --- | --- | --- |'
for row in $rows; do
  if ! choose "$row" >"$scratch/options"; then
    echo "| $row | | no files: $(tail -1 "$scratch/log" | cut -c 1-160) | | |"
    continue
  fi
  for gb in $limits; do run_cell "$row" "$gb"; done
done
