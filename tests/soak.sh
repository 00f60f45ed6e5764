#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tests of chance and of length at the counts that docs/testing.md lists: half an hour on two cores. What they
# counted is said at the end.
#   usage: [BUILD=build/plain] tests/soak.sh
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build/plain}
failed=0
said=

# long COUNT TEST: the test with so many of what it does.
long() {
  FK_TEST_COUNT=$1 meson test -C "$build" --print-errorlogs --timeout-multiplier 20 --logbase "soak-$2" "$2" || failed=1
  said="$said $build/meson-logs/soak-$2.txt"
}
long 200 cancel
long 1000 element-soak
long 100000 allocations # all
long 1000 soak
long 30 element # seconds of properties set by eight threads
# shellcheck disable=SC2086
grep -hE '^(not )?ok|^# .*(instants|refused in turn|more:|peak memory)' $said
exit $failed
