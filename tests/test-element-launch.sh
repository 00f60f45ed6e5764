#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every launch line of docs/element.md on the null backend, and what the documents say about gst-inspect-1.0.
# Prints TAP. Needs GST_PLUGIN_PATH_1_0 and GST_PRESET_PATH to point at the build.
# $1: the document.
set -u
doc=$(realpath "$1")
model=$(dirname "$doc")/../examples/demo-model/checkpoint
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 99
n=0
failed=0

# result NAME STATUS: one TAP line; on failure the log as comments.
result() {
  n=$((n + 1))
  if [ "$2" -eq 0 ]; then
    echo "ok $n /element/launch/$1"
  else
    echo "not ok $n /element/launch/$1"
    failed=1
    sed 's/^/# /' log | tail -n 20
  fi
}

# Inputs of the lines; the pictures of the folder differ in size.
for i in 0 1 2; do
  gst-launch-1.0 -q videotestsrc num-buffers=1 ! video/x-raw,width=$((64 + 16 * i)),height=48 ! videoconvert ! \
    pngenc ! filesink location=in-00$i.png >log 2>&1 || { echo "Bail out! no test picture"; exit 99; }
done
cp in-000.png in.png
cp in-001.png mask.png
cp in-002.png hat.png
gst-launch-1.0 -q videotestsrc num-buffers=6 ! video/x-raw,width=64,height=48 ! jpegenc ! avimux ! \
  filesink location=in.avi >log 2>&1 || { echo "Bail out! no test video"; exit 99; }

# Each ```sh block is one line; only the model changes.
blocks=$(awk '/^```sh/ {b++; f = "block-" b ".sh"; next} /^```/ {f = ""} f {print > f} END {print b}' "$doc")
for b in $(seq 1 "$blocks"); do
  sed -i 's/model-path=[^ ]*/backend=null max-area=65536 steps=2/' "block-$b.sh"
  timeout 60 sh "block-$b.sh" >log 2>&1
  status=$?
  grep -q '^ERROR\|CRITICAL' log && status=1
  grep -q 'Progress: (edit) step 2 of' log || status=1
  result "line-$b" $status
done
for f in out.png out-000.png out-002.png out.avi night.png sepia.png masked.png referred.png; do
  : >log
  test -s $f
  result "wrote/$f" $?
done

# What a user sees without any model.
gst-inspect-1.0 fluxkontextedit >log 2>&1
result "inspect/runs" $?
grep -q 'Production' log && grep -q 'model-path' log
result "inspect/shows-presets-and-properties" $?
G_DEBUG=fatal-criticals gst-inspect-1.0 --gst-disable-registry-fork fluxkontextedit >log 2>&1
result "inspect/no-criticals" $?
# Inspecting reads nothing of the GPU: neither the module nor its driver is a library of the plugin.
ldd "$GST_PLUGIN_PATH_1_0/libgstfluxkontext.so" >log 2>&1
! grep -q 'libcuda\|libcudart\|libcublas\|fkcuda\|not found' log
result "inspect/no-gpu-library" $?

# A wrong path: a failing exit code and one message that names it.
gst-launch-1.0 -q videotestsrc num-buffers=1 ! \
  fluxkontextedit backend=cpu model-path=/nonexistent/model ! fakesink >log 2>&1
test $? -ne 0
result "wrong-path/exit-code" $?
test "$(grep -c '^ERROR: from element' log)" -eq 1 && grep -q '/nonexistent/model' log
result "wrong-path/one-error" $?

# The same picture, prompt and seed in three processes.
for i in 1 2 3; do
  gst-launch-1.0 -q filesrc location=in.png ! pngdec ! videoconvert ! video/x-raw,format=RGB ! \
    fluxkontextedit backend=cpu model-path="$model" prompt="make it night" steps=2 max-area=4096 ! \
    filesink location=run-$i.rgb >log 2>&1
  result "three-processes/run-$i" $?
done
cmp run-1.rgb run-2.rgb >log 2>&1 && cmp run-1.rgb run-3.rgb >>log 2>&1 && test -s run-1.rgb
result "three-processes/same-bytes" $?

echo "1..$n"
exit $failed
