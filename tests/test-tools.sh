#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tools and gst-inspect-1.0 from outside: results, exit codes, messages, start-up time.
. "$(dirname "$0")/tap.sh"
model=$FK_SOURCE/examples/demo-model/checkpoint
photo=$FK_SOURCE/examples/demo-model/photos/coffee_256.png
doctor=$FK_BUILD/examples/fluxkontext-doctor
edit=$FK_BUILD/examples/fluxkontext-edit-image

# ---- gst-inspect-1.0: no model, no GPU ----

expect /tools/inspect/runs gst-inspect-1.0 fluxkontextedit
# Only our plugin: what others print is theirs. The scanner opens it in this process, where a critical is fatal.
mkdir none
expect /tools/inspect/print-all env G_DEBUG=fatal_criticals GST_REGISTRY="$scratch/registry" \
  GST_PLUGIN_SYSTEM_PATH_1_0="$scratch/none" gst-inspect-1.0 --print-all --gst-disable-registry-fork
grep -q fluxkontextedit "$log"
check /tools/inspect/print-all-has-it $?
# Looking at the element costs no driver and no module: a new registry, so that the plugin is opened.
GST_REGISTRY="$scratch/registry-2" LD_DEBUG=files gst-inspect-1.0 --gst-disable-registry-fork fluxkontextedit >"$log" 2>&1
grep -q 'file=.*libgstfluxkontext' "$log" && ! grep -E 'file=.*(libcuda|fkcuda)' "$log"
check /tools/inspect/opens-no-driver $?

# ---- fluxkontext-doctor ----

expect /tools/doctor/plan "$doctor" --plan 1024x1024 --config kontext-dev
awk '$1 == "step" && $2 == 11901408320 {found = 1} END {exit !found}' "$log"
check /tools/doctor/plan-11.9-G-parameters $?
grep -q '^step: 165.4.* TFLOP' "$log"
check /tools/doctor/plan-165.4-TFLOP $?
expect /tools/doctor/plan-of-a-folder "$doctor" --float32 --plan 256x256 "$model" steps=4
expect /tools/doctor/sound-model "$doctor" "$model"
"$doctor" /nowhere >"$log" 2>&1
[ $? -eq 1 ] && grep -q '/nowhere' "$log"
check /tools/doctor/no-model $?
"$doctor" --plan 0x16 >"$log" 2>&1
[ $? -eq 1 ] && grep -q '0x16' "$log"
check /tools/doctor/bad-size $?
"$doctor" --no-such-option >"$log" 2>&1
[ $? -eq 2 ]
check /tools/doctor/bad-option $?

# ---- fluxkontext-edit-image ----

expect /tools/edit-image/runs "$edit" -m "$model" -p 'make it night' "$photo" tool.png seed=1 backend=cpu
compare -metric PAE tool.png "$FK_SOURCE/tests/golden/edits/square-1.png" null: >"$log" 2>&1
sed 's/.*(\(.*\)).*/\1/' "$log" | awk '{exit !($1 != "" && $1 * 255 <= 2.001)}'
check /tools/edit-image/within-2-of-the-reference $?
"$edit" -m "$model" -p x /nowhere.png tool.png >"$log" 2>&1
[ $? -eq 1 ] && grep -q '/nowhere.png' "$log"
check /tools/edit-image/no-picture $?
"$edit" -m "$model" -p x "$photo" tool.png steps=none >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'steps: "none"' "$log"
check /tools/edit-image/bad-value $?
"$edit" >"$log" 2>&1
[ $? -eq 2 ]
check /tools/edit-image/usage $?
# An interrupt ends it within a step, and nothing half-written stays.
"$edit" -m "$model" -p x "$photo" interrupted.png steps=300 backend=cpu >"$log" 2>&1 &
child=$!
# Bit 2 of the caught signals: SIGINT.
until grep -q '^SigCgt:.*[2367abef]$' /proc/$child/status; do sleep 0.1; done
kill -INT $child 2>"$log"
wait $child
[ $? -eq 130 ] && [ ! -e interrupted.png ]
check /tools/edit-image/interrupt $?

done_testing
