#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `meson install` puts where; that tools, element, presets and a program built through pkg-config work from there with
# nothing in the environment but what the README says; that the libraries show nothing but their interface; and that
# `meson devenv` finds the element.
. "$(dirname "$0")/tap.sh"
unset GST_PLUGIN_PATH_1_0 GST_PRESET_PATH FK_MODULE_DIR LD_LIBRARY_PATH
option() {
  meson introspect "$FK_BUILD" --buildoptions |
    python3 -c 'import json, sys; print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == sys.argv[1]))' "$1"
}
root=$scratch/root
expect /install/runs meson install -C "$FK_BUILD" --no-rebuild --destdir "$root"
prefix=$root$(option prefix)
lib=$prefix/$(option libdir)
for file in "$lib/gstreamer-1.0/libgstfluxkontext.so" "$lib/libfluxkontext.so.1" "$prefix/include/fluxkontext-1.0/fk.h" \
  "$prefix/include/fluxkontext-1.0/fk-bindings.h" "$prefix/include/fluxkontext-1.0/gstfluxkontextmeta.h" \
  "$lib/pkgconfig/fluxkontext-1.0.pc" "$prefix/share/gstreamer-1.0/presets/GstFluxKontextEdit.prs" \
  "$prefix/bin/fluxkontext-doctor" "$prefix/bin/fluxkontext-edit-image" "$prefix/bin/fluxkontext-bench" \
  "$prefix/bin/fluxkontext-quality" "$prefix/bin/fluxkontext-pack" "$prefix/share/fluxkontext/tests/quality/cases.json"; do
  expect "/install/has/$(basename "$file")" test -s "$file"
done
if [ -e "$FK_BUILD/kernels/fkcuda.so" ]; then
  expect /install/has/fkcuda.so test -s "$lib/fluxkontext/fkcuda.so"
else
  skip /install/has/fkcuda.so "built without nvcc"
fi

# ---- From the prefix, with an empty environment, from another working directory ----

model=$FK_SOURCE/examples/demo-model/checkpoint
photo=$FK_SOURCE/examples/demo-model/photos/coffee_256.png
bare() { env -i PATH="$PATH" HOME="$scratch" LC_ALL=C.UTF-8 "$@"; }
for tool in edit-image batch verify doctor pack calibrate bench quality; do
  expect "/install/tool/$tool" bare "$prefix/bin/fluxkontext-$tool" --version
done
[ -s "$prefix/share/man/man1/fluxkontext-batch.1" ] && [ -s "$prefix/share/man/man7/fluxkontext-properties.7" ] &&
  [ -s "$prefix/share/bash-completion/completions/fluxkontext-batch.bash" ] && [ -s "$prefix/share/zsh/site-functions/_fluxkontext" ]
check /install/tool/described $?
[ "$(bare "$prefix/bin/fluxkontext" batch --version 2>"$log")" = "$("$prefix/bin/fluxkontext-batch" --version)" ]
check /install/tool/starts-others $?
expect /install/tool/edits bare "$prefix/bin/fluxkontext-edit-image" -m "$model" -p 'make it night' "$photo" night.png \
  steps=1 max-area=4096 backend=cpu
printf 'one-step: steps=1\ntwo-steps: steps=2\n' >settings.txt
expect /install/tool/measures bare "$prefix/bin/fluxkontext-quality" -m "$model" -b cpu -t named -n 1 -s settings.txt --doc doc.md
grep -q '| one-step | 1 | ' doc.md && grep -q 'How it is measured' doc.md
check /install/tool/has-its-cases $?

# The two lines of the README, with the folders from pkg-config.
mkdir pc
sed "s|^prefix=.*|prefix=$prefix|" "$lib/pkgconfig/fluxkontext-1.0.pc" >pc/fluxkontext-1.0.pc
export PKG_CONFIG_PATH="$scratch/pc"
plugins=$(pkg-config --variable=pluginsdir fluxkontext-1.0) presets=$(pkg-config --variable=presetsdir fluxkontext-1.0)
expect /install/element/found bare GST_PLUGIN_PATH="$plugins" gst-inspect-1.0 fluxkontextedit
expect /install/element/preset bare GST_PLUGIN_PATH="$plugins" GST_PRESET_PATH="$presets" gst-launch-1.0 videotestsrc \
  num-buffers=1 ! fluxkontextedit backend=null steps=2 @preset='Quick look' ! fakesink
grep -q 'step 8 of 8' "$log"
check /install/element/preset-is-used $?

# A program outside the project.
flags=$(pkg-config --cflags --libs fluxkontext-1.0 2>"$log")
check /install/program/pkg-config $?
# shellcheck disable=SC2086
expect /install/program/compiles cc -std=c11 -Wall -Wextra -Werror "$FK_SOURCE/tests/test-header.c" $flags -o program
expect /install/program/runs env LD_LIBRARY_PATH="$lib" ./program

# ---- Files ----

# Exported symbols are an interface.
nm -D --defined-only "$lib/libfluxkontext.so.1" | awk '$2 ~ /[A-Z]/ && $3 !~ /^fk_/ {print $3}' >"$log"
[ ! -s "$log" ]
check /install/library-exports-fk-only $?
nm -D --defined-only "$lib/gstreamer-1.0/libgstfluxkontext.so" | awk '$2 ~ /[A-Z]/ && $3 !~ /^gst_plugin_/ {print $3}' >"$log"
[ ! -s "$log" ]
check /install/plugin-exports-gst_plugin-only $?
# Neither links CUDA: a machine without a driver loads them.
ldd "$lib/libfluxkontext.so.1" "$lib/gstreamer-1.0/libgstfluxkontext.so" 2>&1 | grep -i 'libcu' >"$log"
[ ! -s "$log" ]
check /install/links-no-cuda $?
for file in "$lib/libfluxkontext.so.1" "$lib/gstreamer-1.0/libgstfluxkontext.so" "$prefix/bin/fluxkontext-doctor"; do
  readelf -d "$file" >"$log" 2>&1
  grep -q 'BIND_NOW' "$log"
  check "/install/hardened/now/$(basename "$file")" $?
  readelf -lW "$file" >"$log" 2>&1
  grep -q 'GNU_RELRO' "$log"
  check "/install/hardened/relro/$(basename "$file")" $?
done
nm -D "$lib/libfluxkontext.so.1" | grep -q __stack_chk_fail
check /install/hardened/stack $?
if [ "$(option optimization)" != 0 ] && [ "$(option b_sanitize)" = none ]; then
  nm -D "$lib/libfluxkontext.so.1" | grep -q '_chk@'
  check /install/hardened/fortified $?
else
  skip /install/hardened/fortified "only in optimised builds without a sanitizer"
fi
# Libraries are found by places relative to the program, not by the folder that they were built in.
for file in "$lib/libfluxkontext.so.1" "$lib/gstreamer-1.0/libgstfluxkontext.so" "$prefix"/bin/*; do
  readelf -d "$file" | grep -E 'R(UN)?PATH' | grep -v 'ORIGIN'
done >"$log" 2>&1
[ ! -s "$log" ]
check /install/no-path-of-the-build $?

expect /install/devenv env GST_REGISTRY="$scratch/registry-2" meson devenv -C "$FK_BUILD" gst-launch-1.0 videotestsrc \
  num-buffers=1 ! fluxkontextedit backend=null steps=2 @preset='Quick look' ! fakesink

done_testing
