# Sourced by demo.sh and tests/run.sh: says what runs while it runs.

# step WHAT LOG COMMAND...: a line when the command begins, every ten seconds where it is (the end of its log), and how
# long it took. A failure shows the end of the log; the command's exit status is returned.
step() {
  step_what=$1 step_log=$2
  shift 2
  printf '%s ...\n' "$step_what"
  step_began=$(date +%s)
  "$@" >"$step_log" 2>&1 </dev/null &
  step_child=$!
  trap 'kill "$step_child" 2>/dev/null; exit 130' INT TERM
  step_beats=0
  while kill -0 "$step_child" 2>/dev/null; do
    sleep 0.2
    step_beats=$((step_beats + 1))
    [ $((step_beats % 50)) -ne 0 ] || printf '  %3d s: %.90s\n' $(($(date +%s) - step_began)) "$(tail -n 1 "$step_log")"
  done
  step_status=0
  wait "$step_child" || step_status=$?
  trap - INT TERM
  if [ "$step_status" -ne 0 ]; then
    printf '%s: failed with exit status %d; the end of %s:\n' "$step_what" "$step_status" "$step_log"
    tail -n 40 "$step_log"
  else
    printf '  %3d s: done\n' $(($(date +%s) - step_began))
  fi
  return "$step_status"
}
