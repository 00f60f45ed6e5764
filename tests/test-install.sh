#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `meson install` puts where, that a program builds and runs against it through pkg-config, that the libraries show
# nothing but their interface, and that `meson devenv` finds the element.
. "$(dirname "$0")/tap.sh"
unset GST_PLUGIN_PATH_1_0 GST_PRESET_PATH FK_MODULE_DIR
root=$scratch/root
expect /install/runs meson install -C "$FK_BUILD" --no-rebuild --destdir "$root"
prefix=$(meson introspect "$FK_BUILD" --buildoptions | python3 -c \
  'import json, sys; print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')
libdir=$(meson introspect "$FK_BUILD" --buildoptions | python3 -c \
  'import json, sys; print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "libdir"))')
lib=$root$prefix/$libdir
for file in "$lib/gstreamer-1.0/libgstfluxkontext.so" "$lib/libfluxkontext.so.1" \
  "$root$prefix/include/fluxkontext-1.0/fk.h" "$lib/pkgconfig/fluxkontext-1.0.pc" \
  "$root$prefix/share/gstreamer-1.0/presets/GstFluxKontextEdit.prs" "$root$prefix/bin/fluxkontext-doctor" \
  "$root$prefix/bin/fluxkontext-edit-image"; do
  expect "/install/has/$(basename "$file")" test -s "$file"
done
if [ -e "$FK_BUILD/kernels/fkcuda.so" ]; then
  expect /install/has/fkcuda.so test -s "$lib/fluxkontext/fkcuda.so"
else
  skip /install/has/fkcuda.so "built without nvcc"
fi

# A program outside the project.
mkdir pc
sed "s|^prefix=.*|prefix=$root$prefix|" "$lib/pkgconfig/fluxkontext-1.0.pc" >pc/fluxkontext-1.0.pc
flags=$(PKG_CONFIG_PATH=$scratch/pc pkg-config --cflags --libs fluxkontext-1.0 2>"$log")
check /install/pkg-config $?
# shellcheck disable=SC2086
expect /install/compiles cc -std=c11 -Wall -Wextra -Werror "$FK_SOURCE/tests/test-header.c" $flags -o program
expect /install/program-runs env LD_LIBRARY_PATH="$lib" ./program
expect /install/element-found env LD_LIBRARY_PATH="$lib" GST_PLUGIN_PATH_1_0="$lib/gstreamer-1.0" \
  GST_REGISTRY="$scratch/registry" gst-inspect-1.0 fluxkontextedit

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

expect /install/devenv env GST_REGISTRY="$scratch/registry-2" meson devenv -C "$FK_BUILD" gst-launch-1.0 videotestsrc \
  num-buffers=1 ! fluxkontextedit backend=null steps=2 @preset='Quick look' ! fakesink

done_testing
