#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ThreadSanitizer over the engine's queue and the element: builds them with it, shows it GLib's locks
# (tests/tsan-glib.c) and runs the programs that use several threads. The last line counts its reports, but for those of
# tests/tsan.supp.
#   usage: tests/tsan.sh [TEST...]      default: engine element element-share element-stop element-flow
set -eu
cd "$(dirname "$0")/.."
folder=build/tsan
[ $# -gt 0 ] || set -- engine element element-share element-stop element-flow
[ -f $folder/build.ninja ] ||
  meson setup $folder -Db_sanitize=thread -Db_lundef=false -Dexamples=false -Dcuda=disabled >/dev/null
programs=
for test in "$@"; do programs="$programs tests/test-$test"; done
# shellcheck disable=SC2086
ninja -C $folder gst/libgstfluxkontext.so $programs >/dev/null
# shellcheck disable=SC2046
gcc -fsanitize=thread -shared -fPIC -D_GNU_SOURCE -Wl,--no-as-needed -o $folder/tsan-glib.so tests/tsan-glib.c \
  $(pkg-config --cflags --libs gio-2.0 gstreamer-1.0) -ldl

# Reports go to files, one for each process. setarch: the sanitizer's map of the address space has no room for all of
# the random places that newer kernels choose. G_SLICE: memory that slices hand from thread to thread looks like a race.
rm -f $folder/report.*
failed=0
here=$PWD
options="suppressions=$here/tests/tsan.supp:log_path=$here/$folder/report:exitcode=0"
meson test -C $folder --no-rebuild --timeout-multiplier 20 "$@" --wrapper \
  "setarch -R env G_SLICE=always-malloc LD_PRELOAD=$here/$folder/tsan-glib.so TSAN_OPTIONS=$options" || failed=1
count=$(cat $folder/report.* 2>/dev/null | grep -cE '(WARNING|ERROR|FATAL): ThreadSanitizer' || true)
[ "$count" -eq 0 ] || cat $folder/report.*
echo "$count reports of ThreadSanitizer in: $*"
[ "$count" -eq 0 ] && [ $failed -eq 0 ]
