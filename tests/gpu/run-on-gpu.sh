#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# All GPU tests and timings in one command, on the machine with the GPU: correctness first, then speed, then a table.
#
#   usage: tests/gpu/run-on-gpu.sh [--full] [PREFIX]
#
# Without --full: the demo checkpoint alone, about a minute. --full: a random checkpoint of the published model's size
# too (34 GB, written to CHECKPOINT unless it is there), about five minutes.
# PREFIX: a folder with bin/ (the programs, fkcuda.so), lib/ and plugins/ for machines where nothing is installed;
# default: the build folder BUILD (default build).
# Environment: OUT (logs and JSON; default a new folder under /tmp), CHECKPOINT (default /dev/shm/flux-kontext-random),
# WHEELS (a folder with the wheel of diffusers, if Python has none), PYTHON (default python3), FK_CUDA_MODULE,
# BACKEND (default cuda; cpu tries the script itself).
# What is missing on the machine (gst-launch-1.0, compute-sanitizer, diffusers) is skipped and counted.
# Last line: N passed, N failed, N skipped. Exit status 1 if one failed.
set -u
export FK_SOURCE="${FK_SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}" PYTHONUNBUFFERED=1 LC_ALL=C.UTF-8
export BACKEND="${BACKEND:-cuda}" PYTHON="${PYTHON:-python3}" CHECKPOINT="${CHECKPOINT:-/dev/shm/flux-kontext-random}"
export DEMO="$FK_SOURCE/examples/demo-model/checkpoint" PHOTO="$FK_SOURCE/examples/demo-model/photos/coffee_256.png"
export GOLDEN="$FK_SOURCE/tests/golden/edits" HERE="$FK_SOURCE/tests/gpu"
NIGHT="make it night" CUDA="backend=$BACKEND" LARGE="max-sequence-length=512"

# ---- Parts: each is run as a process of its own, so that a time limit holds ----

dump() { # BACKEND FOLDER MODEL IMAGE SETTINGS...
  rm -rf "${OUT:?}/$2" && mkdir -p "$OUT/$2" && b=$1 f=$2 m=$3 i=$4 && shift 4 &&
    FK_DUMP="$OUT/$f" fluxkontext-edit-image -m "$m" -p "$NIGHT" "$i" "$OUT/$f.png" backend="$b" seed=1 "$@"
}

# bfloat16 has 8 bits: measured 2e-3 to 6e-3, each stage on what the one before left. A wrong row, scale or constant
# shows as 0.1 and more.
part_demo_stages() {
  dump cpu demo-cpu "$DEMO" "$PHOTO" steps=1 && dump "$BACKEND" demo-cuda "$DEMO" "$PHOTO" steps=1 &&
    "$PYTHON" "$HERE/summary.py" dumps "$OUT/demo-cuda" "$OUT/demo-cpu" 0.02
}

part_demo_modules() {
  "$PYTHON" "$HERE/compare_full.py" "$DEMO" "$OUT/demo-cuda" "$NIGHT" --text-length 64
}

part_three_processes() {
  for i in 1 2 3; do test-gpu-edit --hash "$DEMO" 304x208 2 || return; done | grep differ > "$OUT/hashes.txt"
  cat "$OUT/hashes.txt"
  [ "$(wc -l < "$OUT/hashes.txt")" = 3 ] && [ "$(sort -u "$OUT/hashes.txt" | wc -l)" = 1 ]
}

part_launch() {
  command -v gst-launch-1.0 || return 77
  for i in 1 2 3; do
    gst-launch-1.0 filesrc location="$PHOTO" ! pngdec ! videoconvert ! fluxkontextedit model-path="$DEMO" \
      prompt="$NIGHT" seed=1 $CUDA ! pngenc ! filesink location="$OUT/launch-$i.png" || return 1
  done
  sha256sum "$OUT"/launch-*.png
  [ "$(sha256sum "$OUT"/launch-*.png | cut -d' ' -f1 | sort -u | wc -l)" = 1 ] || return 1
  fluxkontext-edit-image -m "$DEMO" -p "$NIGHT" "$PHOTO" "$OUT/tool.png" $CUDA seed=1 &&
    "$PYTHON" "$HERE/summary.py" psnr "$OUT/launch-1.png" "$OUT/tool.png" 900 &&
    "$PYTHON" "$HERE/summary.py" psnr "$OUT/launch-1.png" "$GOLDEN/square-1.png" 40
}

part_cuda_memory() {
  command -v gst-launch-1.0 || return 77
  "$PYTHON" "$HERE/cuda_memory.py" "$DEMO"
}

# Three steps: the first evaluation is issued op by op, the second recorded, the third replayed.
part_sanitizer() { # TOOL STEPS [SETTINGS...]
  tool=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  [ -x "$tool" ] || return 77
  name=$1 steps=$2
  shift 2
  "$tool" --tool "$name" --report-api-errors no --error-exitcode 9 --print-limit 10 \
    "$(command -v fluxkontext-edit-image)" -m "$DEMO" -p "$NIGHT" "$PHOTO" "$OUT/$name-$$.png" $CUDA steps="$steps" "$@"
}

# The same of the kernels of 8 bits.
part_codes() { part_sanitizer "$1" "$2" quantization=fp8 modulation-quantization=fp8 text-quantization=fp8; }

# A hundred edits in 8 bits have one hash, alone and with a cadence, graphs on and off.
part_codes_hashes() {
  for more in "quantization=fp8" "quantization=fp8 attention-precision=fp8" "quantization=fp8 weight-dither=on"; do
    for graph in on off; do
      # shellcheck disable=SC2086
      test-gpu-edit --hash "$DEMO" 256x256 50 steps=4 $more cuda-graph=$graph || return
    done
  done | grep differ > "$OUT/codes-hashes.txt"
  cat "$OUT/codes-hashes.txt"
  [ "$(wc -l < "$OUT/codes-hashes.txt")" = 6 ] && [ "$(sed 's/.*: //' "$OUT/codes-hashes.txt" | sort -u | wc -l)" = 3 ]
}

mask_of() { sed -n 's/.*"ran": .*"mask": "\([01]*\)".*/\1/p' "$1"; }
hash_of() { sed -n 's/.*"result": .*"sha256": "\([0-9a-f]*\)".*/\1/p' "$1"; }

# Decisions made in 8 bits are replayed with the same bytes; in full precision throughout it is the edit without codes.
part_codes_replayed() {
  one() { # NAME SETTINGS...
    name=$1
    shift
    fluxkontext-batch -m "$DEMO" -p "$NIGHT" -o "$OUT/replay-$name" --overwrite "$PHOTO" $CUDA seed=3 "$@" \
      > "$OUT/replay-$name.txt" 2>&1 || { cat "$OUT/replay-$name.txt"; return 1; }
  }
  cache="quantization=fp8 step-cache=teacache step-cache-threshold=0.3"
  # shellcheck disable=SC2086
  one found $cache && one again $cache "step-cache-mask=$(mask_of "$OUT"/replay-found/*.json)" &&
    one full quantization=fp8 precision-first=28 && one plain || return
  for name in found again full plain; do hash_of "$OUT"/replay-$name/*.json; done | tee "$OUT/replays.txt"
  [ "$(sort -u "$OUT/replays.txt" | wc -l)" = 2 ] && [ "$(head -n 2 "$OUT/replays.txt" | sort -u | wc -l)" = 1 ]
}

# What 8 bits cost a velocity, and that outlying columns cost no more.
part_acceptance() { "$PYTHON" "$HERE/acceptance.py" -m "$DEMO" -b "$BACKEND" -n 5 quantization=fp8; }
part_planted() { "$PYTHON" "$HERE/acceptance.py" -m "$DEMO" -b "$BACKEND" -n 2 --planted quantization=fp8; }

refused() { # PATTERN SETTINGS...: one message that matches, exit status not 0
  pattern=$1
  shift
  fluxkontext-edit-image -m "$DEMO" -p "$NIGHT" "$PHOTO" "$OUT/refused.png" "$@" > "$OUT/refused.txt" 2>&1 && return 1
  cat "$OUT/refused.txt"
  [ "$(grep -c . "$OUT/refused.txt")" = 1 ] && grep -Eq "$pattern" "$OUT/refused.txt"
}

# The ranges that a profiler would see, as a library in the profiler's place prints them.
part_nvtx() {
  lib=$(command -v nvtx-record.so) || return 77
  NVTX_INJECTION64_PATH="$lib" fluxkontext-edit-image -m "$DEMO" -p "$NIGHT" "$PHOTO" "$OUT/nvtx.png" $CUDA steps=2 \
    2>&1 | grep -a '^nvtx' > "$OUT/ranges.txt"
  sed -n 's/.* open //p' "$OUT/ranges.txt" | tr '\n' ' '
  [ "$(sed -n 's/.* open //p' "$OUT/ranges.txt" | tr '\n' ' ')" = \
    'load text encode denoise evaluation evaluation decode ' ] && tail -n 1 "$OUT/ranges.txt" | grep -q '^nvtx 0 close'
}

# A module that executes a trap in the middle of an edit, and one without machine code for this device.
part_broken_device() {
  trap=$(command -v trap-module.so) || return 77
  (export FK_REAL_MODULE="$FK_CUDA_MODULE" FK_CUDA_MODULE="$trap" FK_TRAP_AFTER=20 && refused 'must be restarted' $CUDA) ||
    return
  if command -v gst-launch-1.0 > /dev/null; then
    FK_REAL_MODULE="$FK_CUDA_MODULE" FK_CUDA_MODULE="$trap" FK_TRAP_AFTER=20 timeout 30 gst-launch-1.0 \
      filesrc location="$PHOTO" ! pngdec ! videoconvert ! imagefreeze num-buffers=3 ! fluxkontextedit \
      model-path="$DEMO" prompt="$NIGHT" $CUDA ! fakesink > "$OUT/trap.txt" 2>&1 && return 1
    [ $? = 124 ] && return 1
    grep -m 1 'must be restarted' "$OUT/trap.txt" || return
  fi
  old=$(command -v fkcuda-old.so) || return 0
  (export FK_CUDA_MODULE="$old" && refused 'compute capability|architecture' $CUDA)
}

part_refusals() {
  refused 'device 99' $CUDA cuda-device-id=99 && refused 'max-vram is 1000 ' $CUDA max-vram=1000 &&
    (export CUDA_VISIBLE_DEVICES= && refused 'backend=cuda' $CUDA) &&
    (export FK_CUDA_MODULE="$OUT/none.so" && refused 'none.so' $CUDA) &&
    (export FK_CUDA_MODULE="$PHOTO" && refused 'coffee' $CUDA)
}

# Device memory and the process's memory while 1500 edits run: the second sample may not be above the first (1 MiB for
# the process).
memory_now() { # PID
  nvidia-smi -i 0 --query-gpu=memory.used --format=csv,noheader,nounits
  sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"
}

part_soak() {
  test-gpu-edit --hash "$DEMO" 256x256 1500 > "$OUT/soak-edits.txt" 2>&1 &
  pid=$!
  sleep 4
  first=$(memory_now $pid)
  sleep 7
  second=$(memory_now $pid)
  wait $pid || return 1
  echo "device MiB, process KiB: $first then $second" | tr '\n' ' '
  echo "$first $second" |
    awk '{for (i = 1; i <= NF; i++) v[n++] = $i} END {exit !(n == 4 && v[2] <= v[0] && v[3] <= v[1] + 1024)}'
}

part_peer_demo() {
  "$PYTHON" "$HERE/peer.py" --demo --json "$OUT/peer-demo.json" || return
  "$PYTHON" "$HERE/summary.py" edits "$OUT/test-gpu-edit.txt" "$OUT/peer-demo.json"
}

part_checkpoint() {
  [ -e "$CHECKPOINT/complete" ] && return
  "$PYTHON" "$HERE/make_checkpoint.py" "$CHECKPOINT" && touch "$CHECKPOINT/complete"
}

part_full_stages() {
  "$PYTHON" -c 'import diffusers' || return 77
  "$PYTHON" - "$FK_SOURCE/examples/demo-model/photos/coffee.png" "$OUT/in512.png" <<'PY' || return
import sys
from PIL import Image
Image.open(sys.argv[1]).convert('RGB').resize((512, 512)).save(sys.argv[2])
PY
  dump "$BACKEND" full-cuda "$CHECKPOINT" "$OUT/in512.png" steps=1 max-area=262144 $LARGE &&
    "$PYTHON" "$HERE/compare_full.py" "$CHECKPOINT" "$OUT/full-cuda" "$NIGHT"
}

part_full_forwards() {
  test-gpu-edit --hash "$CHECKPOINT" 1024x1024 20 steps=1 $LARGE &&
    test-gpu-edit --hash "$CHECKPOINT" 1024x1024 20 steps=1 $LARGE quantization=fp8 attention-precision=fp8
}

# The same with every op's output hashed, which changes the timing between ops and names the op that races.
part_full_ops() {
  hash=$(command -v hash-module.so) || return 77
  FK_HASHES="$OUT/hashes.tsv" FK_REAL_MODULE="$FK_CUDA_MODULE" FK_CUDA_MODULE="$hash" \
    test-gpu-edit --hash "$CHECKPOINT" 1024x1024 20 steps=1 $LARGE && "$PYTHON" "$HERE/hashes.py" "$OUT/hashes.tsv"
  code=$?
  rm -f "$OUT/hashes.tsv"
  return $code
}

# One evaluation recorded and replayed against the same one issued op by op.
part_full_graphs() {
  for g in on off; do
    test-gpu-edit --hash "$CHECKPOINT" 512x512 2 steps=3 max-area=262144 $LARGE cuda-graph=$g || return
  done | grep differ > "$OUT/full-hashes.txt"
  cat "$OUT/full-hashes.txt"
  [ "$(wc -l < "$OUT/full-hashes.txt")" = 2 ] && [ "$(sort -u "$OUT/full-hashes.txt" | wc -l)" = 1 ]
}

part_full_cancel() { test-gpu-edit --cancel "$CHECKPOINT" 512x512 20 steps=6 max-area=262144 $LARGE; }

# Another process holds all but 20 GB: one message with the bytes, no crash.
part_full_memory() {
  "$PYTHON" "$HERE/summary.py" hog 20 -- fluxkontext-edit-image -m "$CHECKPOINT" -p "$NIGHT" "$PHOTO" \
    "$OUT/oom.png" $CUDA > "$OUT/oom.txt" 2>&1 && { cat "$OUT/oom.txt"; return 1; }
  cat "$OUT/oom.txt"
  grep -Eq '[0-9]+ bytes' "$OUT/oom.txt" && [ "$(grep -c '^fluxkontext-edit-image:' "$OUT/oom.txt")" = 1 ]
}

part_bench_demo() {
  fluxkontext-bench -m "$DEMO" -s 256x256 -n 9 -o -w $CUDA --json "$OUT/bench-demo.json"
}

part_bench_1024() {
  nvidia-smi -i 0 --query-gpu=memory.used --format=csv,noheader,nounits -lms 100 > "$OUT/memory.txt" &
  sampler=$!
  fluxkontext-bench -m "$CHECKPOINT" -s 1024x1024 -n 2 -o $CUDA $LARGE --json "$OUT/bench1024.json" \
    --plot "$OUT/bench1024.png"
  code=$?
  kill $sampler
  return $code
}

part_bench_512() {
  fluxkontext-bench -m "$CHECKPOINT" -s 512x512 -n 3 -o $CUDA max-area=262144 $LARGE --json "$OUT/bench512.json"
}

part_bench_switches() {
  fluxkontext-bench -m "$CHECKPOINT" -s 1024x1024 -n 1 -w $CUDA steps=3 $LARGE --json "$OUT/bench-switches.json"
}

part_peer_full() { "$PYTHON" "$HERE/peer.py" --full "$CHECKPOINT" --seconds 75 --json "$OUT/peer.json"; }

case "${1:-}" in
--part)
  shift
  what=part_$1
  shift
  "$what" "$@"
  exit
  ;;
esac

# ---- Running and counting ----

passed=0 failed=0 skipped=0

# start NAME SECONDS COMMAND...: in the background; its exit status and seconds go to NAME.code.
start() {
  name=$1 limit=$2
  shift 2
  (
    begin=$(date +%s)
    timeout -k 5 "$limit" "$@" > "$OUT/$name.txt" 2>&1
    echo "$? $(($(date +%s) - begin))" > "$OUT/$name.code"
  ) &
  echo $! > "$OUT/$name.pid"
}

# collect NAME: waits, and counts the cases of TAP output, else the exit status (77: skipped) as one case.
collect() {
  log=$OUT/$1.txt
  wait "$(cat "$OUT/$1.pid")"
  read -r code seconds < "$OUT/$1.code"
  skip=$(grep -cE '^(ok .*# SKIP|1\.\.0 # [Ss][Kk][Ii][Pp])' "$log") bad=$(grep -c '^not ok' "$log")
  good=$(($(grep -c '^ok [0-9]' "$log") - $(grep -cE '^ok .*# SKIP' "$log")))
  if [ "$code" = 77 ] || { [ "$code" = 124 ] && [ -n "${2:-}" ]; }; then
    good=0 bad=0 skip=1
  elif [ "$code" != 0 ] && [ "$bad" = 0 ]; then
    bad=1
  elif [ $((good + bad + skip)) = 0 ]; then
    good=1
  fi
  passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skip))
  word=ok && [ "$skip" = 0 ] || word=skip
  [ "$good" = 0 ] || word=ok
  [ "$bad" = 0 ] || word=FAIL
  [ "$code" = 124 ] && late=" (over its time)" || late=
  printf '%-4s %-20s %4d s  %d passed, %d failed, %d skipped%s\n' $word "$1" "$seconds" "$good" "$bad" "$skip" "$late"
  if [ $word = FAIL ]; then
    grep -E '^not ok|OVER|UNDER|rror' "$log" | head -8 | cut -c1-200 | sed 's/^/     # /'
    tail -4 "$log" | cut -c1-200 | sed 's/^/     # /'
  fi
}

step() { start "$@"; collect "$1"; }

start_part() { # NAME SECONDS [ARGUMENT]
  p=$1 limit=$2
  shift 2
  start "$p${1:+-$1}" "$limit" sh "$HERE/run-on-gpu.sh" --part "$(echo "$p" | tr - _)" "$@"
}

part() { start_part "$1" "$2"; collect "$1"; }

full=
[ "${1:-}" = --full ] && full=1 && shift
if [ $# -gt 0 ]; then
  prefix=$(cd "$1" && pwd) || exit 2
  export PATH="$prefix/bin:$PATH" LD_LIBRARY_PATH="$prefix/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  [ -d "$prefix/plugins" ] && export GST_PLUGIN_SYSTEM_PATH="$prefix/plugins" \
    GST_PLUGIN_SCANNER="$prefix/bin/gst-plugin-scanner"
  [ -e "$prefix/bin/fkcuda.so" ] && export FK_CUDA_MODULE="${FK_CUDA_MODULE:-$prefix/bin/fkcuda.so}"
else
  build=$(cd "${BUILD:-$FK_SOURCE/build}" && pwd) || exit 2
  export PATH="$build/examples:$build/tests/gpu:$PATH" GST_PLUGIN_PATH="$build/gst" FK_MODULE_DIR="$build/kernels"
  export FK_CUDA_MODULE="${FK_CUDA_MODULE:-$build/kernels/fkcuda.so}"
fi
export OUT="${OUT:-$(mktemp -d /tmp/run-on-gpu.XXXXXX)}"
export GST_REGISTRY="$OUT/registry.bin"
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader ||
  echo "no nvidia-smi"
if [ -n "${WHEELS:-}" ] && ! "$PYTHON" -c 'import diffusers' 2> /dev/null; then
  "$PYTHON" -m pip install -q --no-index --no-deps --target "$OUT/site" "$WHEELS"/*.whl 2> "$OUT/pip.txt"
  export PYTHONPATH="$OUT/site${PYTHONPATH:+:$PYTHONPATH}"
fi

step test-cuda-ops 120 test-cuda-ops
step test-cuda-codes 60 test-cuda-codes
step test-cuda-moves 60 test-cuda-moves
step test-cuda-frames 60 test-cuda-frames
step test-cuda-weights 60 test-cuda-weights --tap
step test-cuda-repeat 90 test-cuda-repeat
step test-gpu-edit 60 test-gpu-edit --tap
step test-gpu-frames 60 test-gpu-frames --tap
step test-gpu-steps 60 test-gpu-steps --tap
step test-gpu-files 60 test-gpu-files --tap
step test-gpu-static 90 test-gpu-static --tap
step test-gpu-devices 60 test-gpu-devices --tap
step test-gpu-machine 60 test-gpu-machine --tap
# What only has to be right runs side by side; what is timed runs alone.
start_part sanitizer 60 memcheck 3
start_part sanitizer 60 initcheck 3
start_part sanitizer 60 synccheck 3
start_part sanitizer 60 racecheck 1
start_part codes 60 memcheck 3
start_part codes 60 initcheck 3
start_part codes 90 racecheck 1
start_part demo-modules 60
start_part peer-demo 60
if [ -n "$full" ]; then
  start_part checkpoint 180
fi
part demo-stages 40
part three-processes 40
part launch 40
part cuda-memory 300
part refusals 20
part broken-device 60
part nvtx 20
for name in sanitizer-memcheck sanitizer-initcheck sanitizer-synccheck demo-modules peer-demo; do collect $name; done
for name in codes-memcheck codes-initcheck; do collect $name; done
for name in sanitizer-racecheck codes-racecheck; do collect $name late-is-skipped; done
part acceptance 180
part planted 90
part soak 60
part codes-hashes 60
part codes-replayed 40
if [ -n "$full" ]; then
  collect checkpoint
  part full-stages 90
  part full-forwards 60
  part full-ops 60
  part full-graphs 40
  part full-cancel 45
  part full-memory 40
  part bench-1024 75
  part bench-512 40
  part bench-switches 60
  start_part peer-full 120
  collect peer-full late-is-skipped
fi
part bench-demo 20

for name in full-stages full-forwards full-ops full-graphs full-cancel full-memory soak refusals peer-demo bench-demo \
  bench-1024 bench-512 bench-switches peer-full; do
  if [ -s "$OUT/$name.txt" ]; then
    echo "--- $name"
    grep -vE 'it/s|Loading|Warning|warn' "$OUT/$name.txt" | cut -c1-150 | head -70
  fi
done
echo "--- logs: $OUT"
"$PYTHON" "$HERE/summary.py" table "$OUT"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
