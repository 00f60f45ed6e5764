#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fluxkontext-batch from outside: names, lists, and what programs read of it.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/batch.sh"
mkdir photos && cp "$demo/coffee_256.png" photos/plain-1.png && cp "$demo/rocket_256.png" photos/plain-2.png &&
  vips black 1.v 3 2 --bands 3 && vips copy 1.v photos/tiny.png && vips copy photos/plain-1.png photos/16-bit.png &&
  vips copy photos/plain-1.png photos/16-bit.tif && head -c 3000 /dev/urandom >photos/broken-noise.png
run calm photos
grep -q ' 5 done, 0 done before, 1 failed' "$log"
check /batch/pictures $?

# ---- Names ----

mkdir names
newline=$(printf 'a\nb.png')
bytes=$(printf 'c\377d.png')
for name in 'with space.png' "$newline" "$bytes" '*.png' 'x[page=1].png' '-dash.png' 'seed=4.png' "'quote\".png"; do
  cp photos/tiny.png "names/$name"
done
run named names && [ "$(find named -name '*.png' -print0 | tr -dc '\0' | wc -c)" -eq 8 ] && whole named
check /batch/names/folder $?
(cd names && printf '%s\0' ./*.png >../names.txt)
mv names.txt names/list.txt
run named-0 --null names/list.txt && same named named-0
check /batch/names/list-with-nul $?
(cd names && run ../named-1 './with space.png' "./$bytes" 'seed=4.png')
[ "$(find named-1 -name '*.png' | wc -l)" -eq 3 ]
check /batch/names/arguments $?
printf 'tiny.png\r\n\nplain-1.png\n' >photos/list.txt
run listed photos/list.txt && [ -e listed/tiny.png ] && cmp listed/plain-1.png calm/plain-1.png >>"$log" 2>&1
check /batch/names/list $?
run piped - <photos/list.txt
[ $? -eq 1 ] && grep -q '^fluxkontext-batch: tiny.png: No such file' "$log"
check /batch/names/standard-input-is-below-here $?
run globbed 'photos/plain-[12].png' && [ "$(find globbed -name '*.png' | wc -l)" -eq 2 ]
check /batch/names/pattern $?
mkdir -p deep/a/b && cp photos/tiny.png deep/one.png && cp photos/tiny.png deep/a/b/two.png
run below --recursive deep && [ -e below/one.png ] && [ -e below/a/b/two.png ] && run flat deep && [ ! -e flat/a ]
check /batch/names/recursive $?
run photos photos/tiny.png
[ $? -eq 1 ] && grep -q 'would replace the picture itself' "$log"
check /batch/names/not-over-the-input $?
run never -f png photos/16-bit.png photos/16-bit.tif
[ $? -eq 1 ] && grep -q 'the result of photos/16-bit.png and of photos/16-bit.tif' "$log" && [ ! -e never ]
check /batch/names/two-of-one $?

# ---- Lists of JSON ----

cat >jobs.jsonl <<'EOF'
{"input": "photos/plain-1.png", "output": "one/a.png", "prompt": "make it day", "seed": 5, "max_area": 4096}
{"input": "photos/plain-1.png", "output": "b.webp", "seed": "18446744073709551615", "guidance": 3.5}
{"input": "photos/plain-1.png"}
EOF
run json jobs.jsonl && cmp json/plain-1.png calm/plain-1.png >>"$log" 2>&1 &&
  [ "$(vipsheader -f vips-loader json/b.webp 2>>"$log")" = webpload ]
check /batch/json/list $?
python3 - >>"$log" 2>&1 <<'EOF'
import json
a, b = (json.load(open(f'json/{n}.json')) for n in ('one/a.png', 'b.webp'))
assert a['settings']['prompt'] == 'make it day' and a['settings']['seed'] == '5'
assert b['settings']['seed'] == '18446744073709551615' and b['settings']['guidance'] == '3.5'
assert b['settings']['prompt'] == 'make it night'
EOF
check /batch/json/records $?
python3 -c "print('{\"input\": ' + '[' * 200000 + ']' * 200000 + '}')" >deep.jsonl
run never deep.jsonl
[ $? -eq 1 ] && grep -q '^fluxkontext-batch: deep.jsonl:1: more than 64 levels of brackets' "$log" && [ ! -e never ]
check /batch/json/deep $?
while IFS='|' read -r line message; do
  printf '{"input": "photos/tiny.png"}\n%s\n' "$line" >bad.jsonl
  run never bad.jsonl
  [ $? -eq 1 ] && grep -q "^fluxkontext-batch: bad.jsonl:2: .*$message" "$log" && [ ! -e never ]
  check "/batch/json/refuses $message" $?
done <<'EOF'
{"input": "a.png", "stepz": 4}|stepz
{"input": "a.png", "steps": -1}|steps: "-1"
{"input": "a.png", "steps": [4]}|steps: expected a text
{"input": "a.png", "threads": 4}|threads
{"input": "a.png", "output": "../b.png"}|not below the folder
{"output": "b.png"}|expected "input"
[1]|expected a JSON object
{"input": |.
EOF

# ---- What programs read ----

run quiet --progress json photos/tiny.png photos/broken-noise.png
python3 - "$log" >>"$log.2" 2>&1 <<'EOF'
import json, sys
events = [json.loads(line) for line in open(sys.argv[1]) if line[0] == '{']
items = {e['input']: e for e in events if e['event'] == 'item'}
assert items['photos/tiny.png']['status'] == 'done' and items['photos/tiny.png']['edit_ms'] > 0
assert items['photos/broken-noise.png']['status'] == 'failed' and 'not a PNG' in items['photos/broken-noise.png']['error']
assert events[-1]['event'] == 'end' and (events[-1]['done'], events[-1]['failed'], events[-1]['left']) == (1, 1, 0)
assert any(e['event'] == 'progress' and e['stage'] == 'step' for e in events)
EOF
check /batch/progress-json $?
run never --dry-run photos
[ $? -eq 1 ] && [ ! -e never ] && grep -q '^photos/plain-1.png -> never/plain-1.png: 256x256 at 64x64, 1 evaluations' "$log" &&
  grep -q '^5 to edit, 0 done before, 1 that cannot' "$log" && grep -q '^time: at least ' "$log"
check /batch/dry-run $?
cp photos/tiny.png film.mp4
run films film.mp4
[ $? -eq 1 ] && grep -q 'film.mp4: a video; .*gst-launch-1.0 filesrc location=' "$log"
check /batch/video $?
run text --text photos/plain-1.png && python3 - >>"$log" 2>&1 <<'EOF'
import json, struct, zlib
data, at, texts = open('text/plain-1.png', 'rb').read(), 8, {}
while at < len(data):
    n, kind = struct.unpack('>I4s', data[at:at + 8])
    body = data[at + 8:at + 8 + n]
    assert zlib.crc32(kind + body) == struct.unpack('>I', data[at + 8 + n:at + 12 + n])[0]
    if kind == b'iTXt':
        key, rest = body.split(b'\0', 1)
        texts[key.decode()] = rest[4:].decode()
    at += 12 + n
assert texts['parameters'].startswith('make it night\nSteps: 1, Sampler: euler, '), texts['parameters']
assert ', Seed: 3, Size: 256x256, Model hash: ' in texts['parameters']
assert json.loads(texts['fluxkontext'])['settings']['seed'] == '3'
assert 'times' not in json.loads(texts['fluxkontext'])
EOF
check /batch/text $?
[ "$(identify -format '%#' text/plain-1.png 2>"$log")" = "$(identify -format '%#' calm/plain-1.png 2>>"$log")" ]
check /batch/text-leaves-pixels $?
for words in "-m $model photos" "-o x" "-o x -m /nowhere photos" "-o x -m $model /nowhere" "-o x -q 0 photos" "-o x -f xcf photos" \
  "-o x --progress loud -m $model photos" "-o x -m $model -d 0,0 photos backend=cpu"; do
  # shellcheck disable=SC2086
  "$batch" $words >"$log" 2>&1
  status=$?
  [ $status -eq 1 ] || [ $status -eq 2 ] && [ "$(grep -c '^fluxkontext-batch: ' "$log")" -eq 1 ] && [ ! -e x ]
  check "/batch/refuses ${words##*/}" $?
done

done_testing
