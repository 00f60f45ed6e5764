#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lines that the tests run, as a table of folders and of parsers with what they must reach (tests/coverage.py), which is
# the exit status.
#   usage: tests/coverage.sh [FILE...]      FILE: print the lines of these that were not run, e.g. core/edit.c
set -eu
cd "$(dirname "$0")/.."
folder=build/coverage
[ -f $folder/build.ninja ] ||
  meson setup $folder -Db_coverage=true -Doptimization=1 -Dexamples=false -Dcuda=disabled -Dintrospection=disabled >/dev/null
ninja -C $folder >/dev/null
find $folder -name '*.gcda' -delete
failed=0
meson test -C $folder --no-rebuild --print-errorlogs --timeout-multiplier 10 --suite core --suite harness || failed=1
python3 tests/coverage.py $folder "$@" || failed=1
exit $failed
