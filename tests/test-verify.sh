#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fluxkontext-verify from outside: equal, and each thing that can differ, by name; its report as table, JSON and page.
. "$(dirname "$0")/tap.sh"
model=$FK_SOURCE/examples/demo-model/checkpoint
demo=$FK_SOURCE/examples/demo-model/photos
batch=$FK_BUILD/examples/fluxkontext-batch
verify=$FK_BUILD/examples/fluxkontext-verify
few='steps=1 max-area=4096 backend=cpu'

mkdir photos && cp "$demo/coffee_256.png" photos/a.png && cp "$demo/rocket_256.png" photos/b.png
for preset in quality fast; do
  # shellcheck disable=SC2086
  expect /verify/edits/$preset "$batch" -m "$model" -p 'make it "night"' --text -o $preset photos seed=18446744073709551615 \
    preset=$preset $few
  "$verify" --trust $preset/a.png.json $preset/b.png.json >"$log" 2>&1
  [ $? -eq 0 ] && [ "$(cat "$log")" = "$preset/a.png.json: equal
$preset/b.png.json: equal" ]
  check /verify/equal/$preset $?
done
expect /verify/png "$verify" -m "$model" -i photos/a.png quality/a.png
expect /verify/other-threads "$verify" --trust quality/a.png.json threads=1
# The input is found beside the record too, and the model is the one that is named.
mkdir beside && cp quality/a.png.json beside/r.json && cp photos/a.png beside && ln -s "$model" model
(cd beside && "$verify" -m ../model r.json) >"$log" 2>&1
check /verify/beside $?

# differs NAME PATTERN WORDS...: status 3 and a line that says what.
differs() {
  name=$1
  pattern=$2
  shift 2
  "$verify" --trust "$@" >"$log" 2>&1
  [ $? -eq 3 ] && grep -q -- "$pattern" "$log"
  check "/verify/differs/$name" $?
}

# fault NAME PATTERN WORDS...: status 1 and one line of error.
fault() {
  name=$1
  pattern=$2
  shift 2
  "$verify" --trust "$@" >"$log" 2>&1
  [ $? -eq 1 ] && [ "$(grep -c '^fluxkontext-verify: ' "$log")" -eq 1 ] && grep -q -- "$pattern" "$log"
  check "/verify/fault/$name" $?
}

# One byte of the image, of the picture that was edited, of the record, of the model.
flip() {
  python3 -c 'import sys; p, at = sys.argv[1], int(sys.argv[2]); d = bytearray(open(p, "rb").read()); d[at] ^= 1; open(p, "wb").write(d)' "$1" "$2"
}
cp -r quality image && flip image/a.png 40000
differs image '^image/a.png.json: image/a.png: expected [0-9a-f]*, found' image/a.png.json
convert photos/a.png -fill '#010203' -draw 'point 3,3' photos/c.png
differs input 'input, photos/c.png: expected' -i photos/c.png quality/a.png.json
sed 's/\(.result.: .*.sha256.: .\)./\1x/' quality/a.png.json >record.json
differs record 'result: expected x' -i photos/a.png record.json
sed 's/"prompt": "[^,]*", "neg/"prompt": "make it day", "neg/' quality/a.png.json >other.json
differs prompt 'result: expected' -i photos/a.png other.json
cp -rL "$model" changed && flip changed/vae/diffusion_pytorch_model.safetensors 7000001
differs model 'model, vae/diffusion_pytorch_model.safetensors: expected' -m changed quality/a.png.json
# A film of edits: one differs, and the others are still told.
differs one-of-many '^quality/b.png.json: equal' image/a.png.json quality/b.png.json

fault no-record 'photos/a.png: the picture holds no record' photos/a.png
fault not-json 'README.md: manifest' "$FK_SOURCE/README.md"
fault missing '/nowhere.json' /nowhere.json
printf '{"fluxkontext-manifest": 9}' >later.json
fault later-form 'form 9; this version reads 1' later.json
fault no-input 'name it with --input' quality/a.png
fault no-model '/nowhere' -m /nowhere quality/a.png.json
fault settings-are-the-records 'steps' quality/a.png.json steps=2

# ---- Records of others ----

# What a record names elsewhere is read when the user says so, and not before.
# stranger NAME PATTERN WORDS...: status 1 and a line that says how to name it.
stranger() {
  name=$1
  pattern=$2
  shift 2
  "$verify" "$@" >"$log" 2>&1
  [ $? -eq 1 ] && grep -q -- "$pattern" "$log"
  check "/verify/stranger/$name" $?
}
stranger model 'model-path: the record names ".*", which is not read unasked' quality/a.png.json
stranger input 'not beside the record: name it with --input' -m "$model" quality/a.png.json
lora=$FK_SOURCE/examples/demo-model/cyanotype.safetensors
sed "s|\"loras\": null|\"loras\": \"$lora\"|" quality/a.png.json >lora.json
stranger loras 'loras: the record names ".*cyanotype.safetensors"' -m "$model" -i photos/a.png lora.json
differs loras 'adapters: expected none, found [0-9a-f]* at 1' -i photos/a.png lora.json
# shellcheck disable=SC2086
expect /verify/edits/adapted "$batch" -m "$model" -p 'cyanotype' -o adapted photos/a.png loras="$lora" $few
expect /verify/loras-by-name "$verify" -m "$model" -i photos/a.png adapted/a.png.json loras="$lora"
# So are the pictures of an edit: a mask and references, by name or where a trusted record says.
convert -size 256x256 xc:black -fill white -draw 'rectangle 60,60 200,200' mask.png
# shellcheck disable=SC2086
expect /verify/edits/pictures "$batch" -m "$model" -p 'make it night' -o pictures photos/a.png mask-path="$PWD/mask.png" \
  references="$PWD/photos/b.png;$PWD/photos/c.png" $few
record=pictures/a.png.json
expect /verify/pictures/trusted "$verify" --trust $record
expect /verify/pictures/by-name "$verify" -m "$model" -i photos/a.png $record mask-path=mask.png \
  references='photos/b.png; photos/c.png'
differs other-mask 'mask: expected [0-9a-f]*, found' $record mask-path=photos/b.png
differs other-reference 'references: expected [0-9a-f]*, [0-9a-f]*, found' $record references='photos/b.png;photos/a.png'
stranger mask 'mask-path: the record names ".*mask.png"' -m "$model" -i photos/a.png $record references='photos/b.png;photos/c.png'
stranger references 'references: the record names ".*b.png' -m "$model" -i photos/a.png $record mask-path=mask.png
stranger number 'the record has 2 pictures, 1 are named' -m "$model" -i photos/a.png $record mask-path=mask.png references=photos/b.png
# Pictures that an application gave without a file.
sed 's/"mask-path": "[^"]*"/"mask-path": null/; s/"references": "[^"]*"/"references": null/' $record >memory.json
stranger mask-in-memory 'name its file with mask-path=FILE' -m "$model" -i photos/a.png memory.json
expect /verify/pictures/in-memory "$verify" -m "$model" -i photos/a.png memory.json mask-path=mask.png references='photos/b.png;photos/c.png'
# And parts of the model that lie elsewhere.
# shellcheck disable=SC2086
expect /verify/edits/parts "$batch" -m "$model" -p 'make it night' -o parts photos/a.png vae-path="$model/vae" $few
expect /verify/parts/trusted "$verify" --trust parts/a.png.json
stranger parts 'vae-path: the record names ".*vae"' -m "$model" -i photos/a.png parts/a.png.json
expect /verify/parts/by-name "$verify" -m "$model" -i photos/a.png parts/a.png.json vae-path="$model/vae"
# A record cannot steer a terminal.
sed 's/"prompt": "[^,]*", "neg/"prompt": "\\u001b]0;title\\u0007", "neg/; s/\(.file.: .*input.: .\)/\1\\u001b[2J/' quality/a.png.json >steer.json
differs printable 'expected' -i photos/a.png steer.json
! grep -q "$(printf '\033')" "$log"
check /verify/stranger/printable $?
mkfifo pipe.png && cp quality/a.png.json pipe.png.json
timeout 20 "$verify" -m "$model" -i photos/a.png pipe.png.json >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'pipe.png: not a file' "$log"
check /verify/stranger/pipe $?

for words in '' '-i x a b' '--report r' '--report r a b' '-n 0 a'; do
  # shellcheck disable=SC2086
  "$verify" $words >"$log" 2>&1
  [ $? -eq 2 ]
  check "/verify/usage/$words" $?
done

# ---- The report ----

# shellcheck disable=SC2086
"$verify" -m "$model" -i photos/a.png --report report -n 2 prompt='make it night' $few >"$log" 2>&1
[ $? -eq 0 ] && [ "$(grep -c ' equal to plain$' "$log")" -eq 8 ] && ! grep -q DIFFERS "$log"
check /verify/report/equal $?
python3 - >>"$log" 2>&1 <<'EOF'
import json
d = json.load(open('report/report.json'))
assert d['verdict'] == 'equal'
modes = [m['mode'] for m in d['modes']]
assert modes[:9] == ['plain', 'preset=exact', 'preset=quality', 'preset=balanced', 'preset=fast', 'preset=turbo',
                     'preset=sprint', 'preset=few-step', 'in a batch of 3'], modes
# An edit keeps its steps, but where the preset has steps of its own.
assert {m['mode']: m['steps'] for m in d['modes']}['preset=few-step'] != d['modes'][0]['steps'] == d['modes'][1]['steps']
assert 'threads=1' in modes and 'other edits between' in modes
for m in d['modes']:
    assert len(m['runs']) == 2 and all(len(r['sha256']) == 64 and r['ms'] > 0 and r['verdict'] == 'equal' for r in m['runs'])
EOF
check /verify/report/json $?
# Green borders and no red ones; with a record whose result is another, both.
pixels() { convert "$1" -fill black +opaque "$2" -fill white -opaque "$2" -format '%[fx:round(mean*w*h)]' info: 2>>"$log"; }
[ "$(pixels report/report.png '#1a9641')" -gt 10000 ] && [ "$(pixels report/report.png '#d7191c')" -eq 0 ]
check /verify/report/page $?
"$verify" --trust --report other -n 1 -i photos/a.png record.json >"$log" 2>&1
[ $? -eq 3 ] && grep -q 'DIFFERS from the record' "$log" && [ "$(pixels other/report.png '#d7191c')" -gt 1000 ]
check /verify/report/differs $?
"$verify" --trust --report again -n 1 fast/a.png.json >"$log" 2>&1
[ $? -eq 0 ] && grep -q '^plain .* equal to the record$' "$log"
check /verify/report/of-a-record $?
"$verify" -m "$model" -i photos/a.png --report /proc/x prompt=x >"$log" 2>&1
[ $? -eq 1 ] && grep -q '/proc/x' "$log"
check /verify/report/no-folder $?

done_testing
