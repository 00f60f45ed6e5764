#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How long opening takes: the folder, the same as a packed model, packed with everything in 8 bits, and diffusers' pipeline of
# the folder, RUNS times each.
#
#   usage: tests/gpu/open.sh        needs open-once and fluxkontext-pack in the path, fkcuda.so as FK_CUDA_MODULE
#
# Environment: CHECKPOINT (default /dev/shm/flux), RUNS (default 3), PACKS (folder for the packed models, one at a time;
# default the checkpoint's), STEP (seconds for one opening, default 60), PACK (seconds for packing, default 240), ROWS
# (default "folder bf16 fp8 diffusers"), PYTHON (with diffusers; default python3, without it the row is left out),
# BACKEND (default cuda; cpu tries the script, with packs in float32), KEEP (not empty: packed models stay, and are taken
# where they are).
# Milliseconds: open, from process start to ready, of the backend (module, driver, device, memory) and the files read
# beside it, of the weights; of the calling thread waiting for readers and for copies; of all readers together reading
# and summing; GB/s: of the weights. Exit status 1: something did not run.
set -u
export BACKEND="${BACKEND:-cuda}" LC_ALL=C.UTF-8
checkpoint=${CHECKPOINT:-/dev/shm/flux} runs=${RUNS:-3} step=${STEP:-60} pack=${PACK:-240} rows=${ROWS:-folder bf16 fp8 diffusers}
packs=${PACKS:-$(dirname "$checkpoint")} status=0
scratch=$(mktemp -d) && made="" && trap 'rm -rf "$scratch"; [ -n "${KEEP:-}" ] || rm -f $made' EXIT

# NAME's model into $model.
choose() {
  model=$checkpoint
  [ "$1" = folder ] || [ "$1" = diffusers ] && return
  model=$packs/open-$1-$BACKEND.safetensors
  [ -n "${KEEP:-}" ] && [ -s "$model" ] && return
  made="$made $model"
  wide=""
  [ "$BACKEND" = cpu ] && wide=--float32
  set -- "$1"
  [ "$1" = fp8 ] && set -- "$1" quantization=fp8 text-quantization=fp8 modulation-quantization=fp8
  shift
  begin=$(date +%s)
  # shellcheck disable=SC2086
  timeout "$pack" fluxkontext-pack $wide "$checkpoint" "$model" "$@" >"$scratch/log" 2>&1 || return
  echo "# packed in $(($(date +%s) - begin)) s: $(du -h --apparent-size "$model" | cut -f1)"
}

# From the first import to a pipeline on the device; "process" is from the start of Python.
cat >"$scratch/peer.py" <<'P'
import os, sys, time
start = time.time()
import torch
from diffusers import FluxKontextPipeline
pipe = FluxKontextPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.bfloat16)
if os.environ['BACKEND'] == 'cuda':
    pipe.to('cuda')
    torch.cuda.synchronize()
print(f'open {1000 * (time.time() - start):.0f}')
print(f'process {1000 * time.time() - int(os.environ["BEGIN"]) / 1e6:.0f}')
P

cell() { sed -n "s/.*$1 \([0-9.]*\).*/\1/p" "$scratch/log" | head -1; }
line() { sed -n "s/^$1 //p" "$scratch/log"; }

echo "| what | GB | open | process | backend | module | driver | device | memory | files | weights | readers | copies | reading | sums | GB/s |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
for row in $rows; do
  if [ "$row" = diffusers ] && ! "${PYTHON:-python3}" -c 'import diffusers' 2>/dev/null; then
    echo "# diffusers: not there"
    continue
  fi
  if ! choose "$row"; then
    echo "# $row: $(tail -1 "$scratch/log")"
    status=1
    continue
  fi
  i=0
  while [ "$i" -lt "$runs" ]; do
    i=$((i + 1))
    set -- open-once
    [ "$row" = diffusers ] && set -- "${PYTHON:-python3}" "$scratch/peer.py"
    if ! BEGIN=$(date +%s%N) timeout "$step" "$@" "$model" >"$scratch/log" 2>&1; then
      echo "# $row: $(tail -1 "$scratch/log")"
      status=1
      break
    fi
    if [ "$row" = diffusers ]; then
      echo "| diffusers | | $(line open) | $(line process) | | | | | | | | | | | | |"
      continue
    fi
    read=$(cell 'last read') weights=$(cell 'weights')
    echo "| $row | $read | $(line open) | $(line process) | $(cell 'backend') | $(cell 'module') | $(cell 'driver') |" \
      "$(cell 'device') | $(cell ', memory') | $(cell 'files') | $weights | $(cell 'waiting for readers') |" \
      "$(cell 'for copies') | $(cell 'reading') | $(cell 'sums') | $(echo "$read $weights" | awk '{printf "%.1f", 1000 * $1 / $2}') |"
  done
  [ -n "${KEEP:-}" ] || [ "$model" = "$checkpoint" ] || rm -f "$model"
done
exit $status
