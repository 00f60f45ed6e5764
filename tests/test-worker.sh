#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fluxkontext-worker and fluxkontext-batch submit, status, collect with a NATS server of its own: three workers of which
# one is killed, a server that stands still, broken pictures, full queues, determinism classes, an S3 store and presigned
# URLs. Whatever happens, results are those of the batch tool byte for byte.
. "$(dirname "$0")/tap.sh"
batch=$FK_BUILD/examples/fluxkontext-batch
worker=$FK_BUILD/examples/fluxkontext-worker
model=$FK_SOURCE/examples/demo-model/checkpoint
photos=$FK_SOURCE/examples/demo-model/photos
few='steps=1 max-area=4096 seed=3'
if ! command -v nats-server >/dev/null; then
  skip /worker "no nats-server"
  done_testing
fi
children=
trap 'kill -9 $children 2>/dev/null; rm -rf "$scratch"' EXIT
unset http_proxy https_proxy
export NO_PROXY=127.0.0.1

start_server() {
  rm -f ports/*
  nats-server -a 127.0.0.1 -p "${port:--1}" -js -sd "$scratch/nats" --ports_file_dir "$scratch/ports" >nats.log 2>&1 &
  server=$!
  children="$children $server"
  wait_for grep -rq nats: ports
  nats=$(sed 's/.*\(nats:[^"]*\)".*/\1/' ports/*.ports)
  port=${nats##*:}
}

# work LOG ARGUMENTS...: a worker in the background, $last
work() {
  out=$1
  shift
  # shellcheck disable=SC2086
  "$worker" -m "$model" --nats "$nats" --root "$scratch" backend=cpu threads=1 "$@" >"$out" 2>"$out.err" &
  last=$!
  children="$children $last"
}

submit() {
  # shellcheck disable=SC2086
  timeout 120 "$batch" submit --nats "$nats" -p "make it night" "$@" $few >"$log" 2>&1
}

# same FOLDER [HIDDEN]: every picture of the undisturbed run is there with equal bytes and its record, and nothing half but
# so many hidden files at most.
same() {
  for f in plain/*.png; do
    cmp "$f" "$1/$(basename "$f")" && [ -e "$1/$(basename "$f").json" ] || return 1
  done >>"$log" 2>&1
  [ "$(find "$1" -name '.*' -type f | wc -l)" -le "${2:-0}" ]
}

mkdir ports in nats
i=0
for crop in 0+0 16+0 32+0 48+0 0+32 16+32 32+32 48+32 0+64 16+64 32+64 48+64; do
  convert "$photos/coffee_256.png" -crop "96x96+$crop" +repage "in/a$i.png"
  convert "$photos/rocket_256.png" -crop "96x96+$crop" +repage "in/b$i.png"
  i=$((i + 1))
done
# shellcheck disable=SC2086
expect /worker/undisturbed "$batch" -m "$model" -p "make it night" -o plain in $few backend=cpu threads=1
start_server

# ---- Three workers, one killed with a job in its hands, the server still for a while ----

submit -o done in && grep -q '24 of 24 submitted, 0 of them' "$log"
check /worker/submit $?
submit -o done in && grep -q '24 of 24 submitted, 24 of them known' "$log"
check /worker/submit-twice $?
"$batch" status --nats "$nats" >"$log" 2>&1 && grep -qx '24 not finished' "$log"
check /worker/status $?
"$batch" collect -o done in >"$log" 2>&1
[ $? -eq 1 ] && grep -q '0 done, 0 failed, 24 missing' "$log"
check /worker/collect-before $?
work one --exit-idle 40
first=$last
work two --exit-idle 40
work three --exit-idle 40
third=$last
wait_for grep -q '"done"' one
kill -9 $first
kill -STOP $server
sleep 3
kill -CONT $server
# What the killed one held comes back after 30 seconds.
collected() {
  "$batch" collect -o done in >"$log" 2>&1
}
wait_for collected && grep -q '24 done, 0 failed, 0 missing' "$log"
check /worker/all-done $?
same done 1 # one, should the killed worker have been writing
check /worker/same-bytes $?
# A result is there before the queue is told, and what the killed one did and did not tell comes back after 30 seconds.
is_empty() {
  "$batch" status --nats "$nats" >"$log" 2>&1 && grep -x '0 not finished' "$log"
}
wait_for is_empty
check /worker/queue-empty $?

# ---- The same again on another queue: nothing is edited twice ----

submit -q again -o done in
work again -q again --exit-idle 2
wait $last
status=$?
cat again again.err >"$log"
[ $status -eq 0 ] && [ "$(grep -c '"result": "skipped"' again)" -eq 24 ]
check /worker/skips-what-is-there $?

# ---- What cannot be done ----

mkdir bad
head -c 2000 in/a0.png >bad/short.png
printf 'no picture' >bad/text.png
cp in/a1.png bad/good.png
submit -q bad -o bad-out bad
work bad.log -q bad --exit-idle 2
wait $last
status=$?
"$batch" collect -o bad-out bad >"$log" 2>&1
[ $? -eq 1 ] && [ $status -eq 0 ] && grep -q '1 done, 2 failed, 0 missing' "$log" && grep -q 'failed .*short.png: .*error' "$log"
check /worker/broken-pictures $?
# A file outside the roots, and one that is not there.
submit -q out -o out-out /usr/share/pixmaps/debian-logo.png 2>/dev/null || cp in/a0.png "/tmp/fk-out-$$.png"
[ ! -e "/tmp/fk-out-$$.png" ] || submit -q out -o out-out "/tmp/fk-out-$$.png"
work out.log -q out --exit-idle 2
wait $last
rm -f "/tmp/fk-out-$$.png"
grep -q 'not in a folder that is allowed' out.log && [ ! -e out-out/debian-logo.png ]
check /worker/outside-the-roots $?

# ---- A full queue ----

submit -q full --max-jobs 5 -o full-out in
[ $? -eq 3 ] && grep -q '5 of 24 submitted' "$log"
check /worker/full $?
work full.log -q full --exit-idle 3
submit -q full --wait -o full-out in && wait $last && same full-out
check /worker/full-then-all $?

# ---- Determinism classes ----

class=$(sed -n 's/.*"class": "\(.*\)",*$/\1/p' done/a0.png.json | head -n 1)
submit -q class --class "cuda NVIDIA H200 0" -o other-out in/a0.png && submit -q class --class "$class" -o mine-out in/a0.png
work class.log -q class --exit-idle 2
wait $last
cmp mine-out/a0.png plain/a0.png >>"$log" 2>&1 && [ ! -e other-out/a0.png ]
check /worker/classes $?

# ---- Stopped by a signal ----

# shellcheck disable=SC2086
"$batch" submit --nats "$nats" -q stop -p x -o stop-out in steps=200 max-area=65536 >"$log" 2>&1
work stop.log -q stop
wait_for grep -q waiting stop.log.err
sleep 0.5
kill -TERM $last
sleep 0.2
kill -TERM $last
wait $last
[ $? -eq 0 ] && [ "$(find stop-out -type f 2>/dev/null | wc -l)" -eq 0 ]
check /worker/signals $?

# ---- Object stores ----

if [ "${FK_S3:-1}" = 1 ]; then
  python3 "$FK_SOURCE/tests/store-server.py" in >store.port &
  children="$children $!"
  wait_for [ -s store.port ]
  store=http://127.0.0.1:$(cat store.port)
  export AWS_ACCESS_KEY_ID=AKIDEXAMPLE AWS_SECRET_ACCESS_KEY=secret-example AWS_SESSION_TOKEN=session-example
  submit -q s3 --rewrite "in=s3://bucket/in" --rewrite "s3-out=s3://bucket/out" -o s3-out in/a0.png in/b1.png
  submit -q s3 --rewrite "in=$store/open/bucket/in" --rewrite "url-out=$store/open/out" -o url-out in/a2.png
  work s3.log -q s3 --exit-idle 2 --s3-endpoint "$store" --s3-region eu-test-1 --allow-url "$store/open/"
  wait $last
  status=$?
  cat s3.log s3.log.err >"$log"
  python3 - "$store" <<'P' >>"$log" 2>&1 && [ $status -eq 0 ] && [ "$(grep -c '"result": "done"' s3.log)" -eq 3 ]
import sys, urllib.request
for there, here in (("/open/bucket/out/a0.png", "a0"), ("/open/bucket/out/b1.png", "b1"), ("/open/out/a2.png", "a2")):
    got = urllib.request.urlopen(sys.argv[1] + there).read()
    assert got == open(f"plain/{here}.png", "rb").read(), there
    urllib.request.urlopen(sys.argv[1] + there + ".json").read()
P
  check /worker/s3-and-urls $?
else
  skip /worker/s3-and-urls "built without libcurl"
fi

# ---- Counters ----

submit -q metrics -o metrics-out in/a0.png
work metrics.log -q metrics --metrics 127.0.0.1:0
counted() { # a job's line is printed before it is counted
  python3 - "$(sed -n 's/.*readiness on //p' metrics.log.err)" <<'P' >"$log" 2>&1
import sys, urllib.request, urllib.error
text = urllib.request.urlopen(sys.argv[1] + "/metrics").read().decode()
assert 'fluxkontext_worker_jobs_total{result="done"} 1\n' in text, text
assert 'fluxkontext_worker_job_duration_seconds_count 1\n' in text and "fluxkontext_ready 1\n" in text, text
assert urllib.request.urlopen(sys.argv[1] + "/readyz").status == 200
try:
    urllib.request.urlopen(sys.argv[1] + "/other")
    sys.exit(1)
except urllib.error.HTTPError as e:
    assert e.code == 404
P
}
wait_for counted
check /worker/metrics $?
kill -TERM $last
wait $last
check /worker/ends-when-told $?
kill $third 2>/dev/null

done_testing
