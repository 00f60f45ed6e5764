# SPDX-License-Identifier: Apache-2.0
# Test Anything Protocol for the shell tests: sourced first. A scratch folder is the working directory; $log is the file
# whose end is shown when a case fails.
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 99
log=$scratch/log
tap_count=0
tap_failed=0
: >"$log"

# check NAME STATUS
check() {
  tap_count=$((tap_count + 1))
  if [ "$2" -eq 0 ]; then
    echo "ok $tap_count $1"
  else
    echo "not ok $tap_count $1"
    tap_failed=1
    tail -n 20 "$log" | sed 's/^/# /'
  fi
}

# expect NAME COMMAND...: the command succeeds; its output goes to $log.
expect() {
  tap_name=$1
  shift
  "$@" >"$log" 2>&1
  check "$tap_name" $?
}

# wait_for COMMAND...: until it succeeds; two minutes at most. Its output is dropped.
wait_for() {
  tap_waited=0
  until "$@" >/dev/null 2>&1; do
    tap_waited=$((tap_waited + 1))
    [ $tap_waited -lt 2400 ] || return 1
    sleep 0.05
  done
}

# comma_locale: numbers with a comma from here on, messages as they are; fails where no such locale can be made.
comma_locale() {
  localedef -i de_DE -f UTF-8 "$scratch/de_DE.UTF-8" >"$log" 2>&1 || return 1
  unset LC_ALL
  export LOCPATH="$scratch" LANG=C.UTF-8 LC_NUMERIC=de_DE.UTF-8
  [ "$(locale decimal_point)" = , ]
}

# skip NAME REASON
skip() {
  tap_count=$((tap_count + 1))
  echo "ok $tap_count $1 # SKIP $2"
}

done_testing() {
  echo "1..$tap_count"
  exit $tap_failed
}
