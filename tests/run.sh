#!/bin/sh
# Builds and runs all tests on Debian 12, installing what is missing; the last line counts them.
#   usage: tests/run.sh            everything (about 10 minutes on two cores)
#          tests/run.sh --quick    without the sanitizer and clang builds
# Tests that need a GPU are skipped and counted where there is none; on a machine with one: tests/gpu/run-on-gpu.sh.
set -eu
cd "$(dirname "$0")/.."
./examples/install-deps.sh --tests
quick=; [ "${1:-}" = --quick ] && quick=1
logs=

# One build folder per configuration: name, meson options, meson test options.
suite() {
  name=$1; shift; options=$1; shift
  folder=build/$name
  [ -f "$folder/build.ninja" ] || meson setup "$folder" $options >"build/$name-setup.log" 2>&1 ||
    { tail -20 "build/$name-setup.log"; failed_setup=1; return; }
  if ! ninja -C "$folder" >"build/$name-build.log" 2>&1; then
    tail -40 "build/$name-build.log"; failed_setup=1; return
  fi
  grep -E 'warning:' "build/$name-build.log" && { echo "$name: compiler warnings"; failed_setup=1; }
  rm -f "$folder/meson-logs/testlog.junit.xml"
  meson test -C "$folder" --no-rebuild --print-errorlogs "$@" || true
  logs="$logs $folder/meson-logs/testlog.junit.xml"
}

mkdir -p build
failed_setup=0
suite plain "--werror"
if [ -z "$quick" ]; then
  suite sanitize "-Db_sanitize=address,undefined -Db_lundef=false -Dexamples=false -Dcuda=disabled" --suite core --suite harness
  CC=clang CXX=clang++ suite clang "--werror -Dcuda=disabled" --suite smoke
fi
exec python3 tests/count.py "$failed_setup" $logs
