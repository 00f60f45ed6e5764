#!/bin/sh
# Builds and runs all tests on Debian 12, installing what is missing; the last line counts them.
#   usage: tests/run.sh            everything (about 20 minutes on two cores)
#          tests/run.sh --quick    without the builds for sanitizers, clang and coverage
# Tests that need a GPU are skipped and counted where there is none; on a machine with one: tests/gpu/run-on-gpu.sh.
set -eu
cd "$(dirname "$0")/.."
./examples/install-deps.sh --tests
. ./examples/step.sh
quick=; [ "${1:-}" = --quick ] && quick=1
logs=

# One build folder per configuration: name, meson options, meson test options. Each test program is a line of meson's.
suite() {
  name=$1; shift; options=$1; shift
  folder=build/$name
  # shellcheck disable=SC2086
  [ -f "$folder/build.ninja" ] || step "$name: configuring in $folder" "build/$name-setup.log" meson setup "$folder" $options ||
    { failed_setup=1; return; }
  step "$name: building" "build/$name-build.log" ninja -C "$folder" || { failed_setup=1; return; }
  grep -E 'warning:' "build/$name-build.log" && { echo "$name: compiler warnings"; failed_setup=1; }
  rm -f "$folder/meson-logs/testlog.junit.xml"
  echo "$name: testing"
  # The limits of the programs are for a machine that does nothing else.
  meson test -C "$folder" --no-rebuild --print-errorlogs --timeout-multiplier 5 "$@" || true
  logs="$logs $folder/meson-logs/testlog.junit.xml"
}

mkdir -p build
failed_setup=0
suite plain "--werror"
if [ -z "$quick" ]; then
  suite sanitize "-Db_sanitize=address,undefined -Db_lundef=false -Dexamples=false -Dcuda=disabled" --suite core --suite harness
  CC=clang CXX=clang++ suite clang "--werror -Dcuda=disabled" --suite smoke
  # As tests/coverage.sh.
  find build/coverage -name '*.gcda' -delete 2>/dev/null || true
  suite coverage "-Db_coverage=true -Doptimization=1 -Dexamples=false -Dcuda=disabled -Dintrospection=disabled" \
    --suite core --suite harness
  python3 tests/coverage.py build/coverage || { echo "coverage: below its targets"; failed_setup=1; }
fi
# shellcheck disable=SC2086
exec python3 tests/count.py "$failed_setup" $logs
