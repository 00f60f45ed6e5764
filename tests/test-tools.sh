#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tools and gst-inspect-1.0 from outside: results, exit codes, messages, files that machines read.
# $1 = comma: under a locale whose numbers have a comma.
. "$(dirname "$0")/tap.sh"
if [ "${1:-}" = comma ] && ! comma_locale; then
  skip /tools/comma-locale "localedef cannot make de_DE.UTF-8"
  done_testing
fi
model=$FK_SOURCE/examples/demo-model/checkpoint
photo=$FK_SOURCE/examples/demo-model/photos/coffee_256.png
doctor=$FK_BUILD/examples/fluxkontext-doctor
edit=$FK_BUILD/examples/fluxkontext-edit-image
bench=$FK_BUILD/examples/fluxkontext-bench
quality=$FK_BUILD/examples/fluxkontext-quality

# ---- gst-inspect-1.0: no model, no GPU ----

expect /tools/inspect/runs gst-inspect-1.0 fluxkontextedit
# Only our plugin: what others print is theirs. The scanner opens it in this process, where a critical is fatal.
mkdir none
expect /tools/inspect/print-all env G_DEBUG=fatal_criticals GST_REGISTRY="$scratch/registry" \
  GST_PLUGIN_SYSTEM_PATH_1_0="$scratch/none" gst-inspect-1.0 --print-all --gst-disable-registry-fork
grep -q fluxkontextedit "$log"
check /tools/inspect/print-all-has-it $?
# Looking at the element costs no driver and no module: a new registry, so that the plugin is opened.
GST_REGISTRY="$scratch/registry-2" GST_PLUGIN_SYSTEM_PATH_1_0="$scratch/none" LD_DEBUG=files \
  gst-inspect-1.0 --gst-disable-registry-fork fluxkontextedit >"$log" 2>&1
grep -q 'file=.*libgstfluxkontext' "$log" && ! grep -E 'file=.*(libcuda|fkcuda)' "$log"
check /tools/inspect/opens-no-driver $?

# ---- All tools ----

for tool in edit-image batch verify doctor pack calibrate bench quality; do
  [ "$("$FK_BUILD/examples/fluxkontext-$tool" --version 2>"$log")" = "fluxkontext-$tool $FK_TOOL_VERSION" ]
  check "/tools/$tool/version" $?
  # Whatever the locale, the text is UTF-8 and whole.
  LC_ALL=C "$FK_BUILD/examples/fluxkontext-$tool" --help >"$log" 2>&1
  [ $? -eq 0 ] && grep -q '\[OPTION…\]' "$log" && grep -q -- --version "$log"
  check "/tools/$tool/help" $?
  # A screen, with an example first and the exit status.
  head -n 1 "$log" | grep -q "^  fluxkontext-$tool" && grep -q '^Exit: 0' "$log" && ! grep -qE '^.{81}' "$log" &&
    [ "$(wc -l <"$log")" -le "$([ $tool = quality ] && echo 40 || echo 30)" ]
  check "/tools/$tool/help-fits-a-screen" $?
  LC_ALL=C.UTF-8 groff -man -ww -z "$FK_BUILD/examples/fluxkontext-$tool.1" >"$log" 2>&1
  [ $? -eq 0 ] && [ ! -s "$log" ] && grep -q '^\.SH EXIT STATUS' "$FK_BUILD/examples/fluxkontext-$tool.1"
  check "/tools/$tool/man-page" $?
  "$FK_BUILD/examples/fluxkontext-$tool" --help >/dev/full 2>"$log"
  [ $? -eq 1 ] && grep -q "fluxkontext-$tool: standard output: No space left on device" "$log"
  check "/tools/$tool/full-disk" $?
  "$FK_BUILD/examples/fluxkontext-$tool" --no-such-option >"$log" 2>&1
  [ $? -eq 2 ] && grep -q -- --no-such-option "$log"
  check "/tools/$tool/bad-option" $?
done

# ---- fluxkontext-pack ----

pack=$FK_BUILD/examples/fluxkontext-pack
expect /tools/pack/packs "$pack" --float32 "$model" packed.safetensors quantization=fp8
expect /tools/pack/edits "$edit" -m packed.safetensors -p 'make it night' "$photo" packed.png steps=1 max-area=4096 backend=cpu
expect /tools/pack/folder-edits "$edit" -m "$model" -p 'make it night' "$photo" folder.png steps=1 max-area=4096 backend=cpu \
  quantization=fp8
expect /tools/pack/same-picture cmp packed.png folder.png
expect /tools/pack/doctor "$doctor" packed.safetensors
grep -q 'packed for float32, quantization=fp8' "$log"
check /tools/pack/doctor-says-what-it-is $?
expect /tools/pack/for-the-cpu "$pack" "$model" cpu.safetensors backend=cpu quantization=fp8
expect /tools/pack/for-the-cpu/as-float32 cmp packed.safetensors cpu.safetensors
"$pack" --float32 "$model" cuda.safetensors backend=cuda >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'is for the CPU, and backend=cuda is given' "$log"
check /tools/pack/contradiction $?
"$pack" "$model" static.safetensors backend=cpu quantization=fp8-static >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'quantization=fp8-static needs a file of fluxkontext-calibrate' "$log"
check /tools/pack/static-scales $?
mkdir a-folder
"$pack" "$model" a-folder backend=cpu >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'a-folder: expected the name of a new file, or of one to replace, found a folder$' "$log"
check /tools/pack/into-a-folder $?
"$pack" "$model" >"$log" 2>&1
[ $? -eq 2 ] && grep -q 'expected MODEL and FILE' "$log"
check /tools/pack/no-file $?
# watches_signals: the child has become the tool, and has bit 2 of the caught signals, SIGINT. This shell catches it too.
watches_signals() {
  [ /proc/$child/exe -ef "$edit" ] && grep -q '^SigCgt:.*[2367abef]$' /proc/$child/status
}
# Nothing is written while the pictures are read: a signal ends the tool at once, be it waiting for a pipe.
mkfifo pipe.png
"$edit" -m "$model" -p x pipe.png waits.png >"$log" 2>&1 &
child=$!
wait_for watches_signals && sleep 1
kill -TERM $child
wait $child
[ $? -eq 130 ] && [ ! -e waits.png ]
check /tools/edit-image/waits-for-a-pipe $?

# ---- fluxkontext, completions ----

fluxkontext=$FK_BUILD/examples/fluxkontext
"$fluxkontext" >"$log" 2>&1
[ $? -eq 0 ] && for tool in edit-image batch verify doctor bench quality; do grep -q "^  $tool " "$log" || exit 1; done
check /tools/fluxkontext/lists $?
[ "$("$fluxkontext" doctor --version 2>"$log")" = "fluxkontext-doctor $FK_TOOL_VERSION" ]
check /tools/fluxkontext/starts $?
"$fluxkontext" no-such-tool >"$log" 2>&1
[ $? -eq 2 ] && grep -q 'fluxkontext: no-such-tool: no such tool' "$log"
check /tools/fluxkontext/refuses $?
# complete WORDS...: what bash offers for the last; "=" is a word of its own, as readline has it.
complete() {
  bash -c 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fluxkontext "$1" 2>/dev/null; echo "${COMPREPLY[*]}"' \
    "$FK_BUILD/examples/fluxkontext-batch.bash" "$@" 2>"$log"
}
[ "$(complete fluxkontext-batch -p x --dry)" = --dry-run ]
check /tools/completion/option $?
[ "$(complete fluxkontext-batch photos/ schedu)" = scheduler= ]
check /tools/completion/property $?
[ "$(complete fluxkontext-batch photos/ scheduler = d)" = 'dpmpp-2m deis' ]
check /tools/completion/value $?
[ "$(complete fluxkontext-bench preset =)" = 'exact quality balanced fast turbo sprint few-step' ]
check /tools/completion/values $?
[ "$(complete fluxkontext ver)" = verify ] && [ "$(complete fluxkontext verify --rep)" = --report= ]
check /tools/completion/fluxkontext $?
: >photo.png
[ "$(complete fluxkontext-edit-image -m x pho)" = photo.png ]
check /tools/completion/file $?
if command -v zsh >/dev/null; then
  expect /tools/completion/zsh zsh -n "$FK_BUILD/examples/_fluxkontext"
else
  skip /tools/completion/zsh "no zsh"
fi

# ---- fluxkontext-doctor ----

expect /tools/doctor/plan "$doctor" --plan 1024x1024 --config kontext-dev
awk '$1 == "step" && $2 == 11901408320 {found = 1} END {exit !found}' "$log"
check /tools/doctor/plan-11.9-G-parameters $?
grep -q '^step: 165.4.* TFLOP' "$log"
check /tools/doctor/plan-165.4-TFLOP $?
expect /tools/doctor/plan-of-a-folder "$doctor" --float32 --plan 256x256 "$model" steps=4
expect /tools/doctor/plan-of-another-size "$doctor" --plan 1000x1000
grep -q 'edited at 1024x1024' "$log" && grep -q '^1000x1000 was asked for' "$log"
check /tools/doctor/tells-the-size-that-it-plans $?
# Models without a reference image have no context tokens, and schnell four steps.
expect /tools/doctor/schnell "$doctor" --plan 1024x1024 -c schnell
grep -q ' 0 context tokens, 4 evaluations' "$log"
check /tools/doctor/schnell-is-planned-as-such $?
expect /tools/doctor/dev "$doctor" --plan 1024x1024 -c dev
grep -q ' 0 context tokens, 28 evaluations' "$log"
check /tools/doctor/dev-is-planned-as-such $?
"$doctor" --plan 1024x1024 -c dev task=edit >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'task=edit: dev' "$log"
check /tools/doctor/dev-does-not-edit $?
expect /tools/doctor/plan-within-a-limit "$doctor" --plan 1024x1024 kontext-dev max-vram=16000000000
"$doctor" --plan 1024x1024 kontext-dev max-vram=1000 >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'bytes of device memory, and max-vram is 1000 bytes' "$log"
check /tools/doctor/plan-above-a-limit $?

expect /tools/doctor/sound-model "$doctor" "$model"
# Parts with files, tensors, values and types, as the files have them; tokenizers; machine.
grep -q '^ *transformer  *3  *154  *10257984  *20.5 MB  BF16$' "$log" && grep -q '^ *in all  *6  *400  *16793475 ' "$log"
check /tools/doctor/lists-parts $?
grep -q 'tokenizer  *1083 tokens; .*merges.txt' "$log" && grep -q 'tokenizer_2  *377 tokens; .*spiece.model' "$log"
check /tools/doctor/lists-tokenizers $?
grep -q '^processor ' "$log" && grep -q '^memory .* GB' "$log" && grep -q '^driver ' "$log" && grep -q '^cuda' "$log"
check /tools/doctor/lists-the-machine $?
grep -q '^cpu  *sound on cpu .* 256x256 takes 28 evaluations, 0.27 TFLOP' "$log"
check /tools/doctor/what-an-edit-takes $?
# Single files: what they are, what they lack, and what is wrong with them.
if command -v python3 >/dev/null; then
  python3 "$FK_SOURCE/tests/rewrite-model.py" "$model" made
  expect /tools/doctor/files "$doctor" made/bfl.safetensors made/t5.gguf made/all.safetensors
  grep -q "names  *Black Forest Labs'" "$log" && grep -q "names  *llama.cpp's" "$log" &&
    grep -q '2 double and 5 single blocks of 256, guidance yes' "$log" &&
    grep -q "those of latent diffusion behind vae." "$log"
  check /tools/doctor/names-layouts $?
  grep -q '^lacks  *text_encoder (clip-path), text_encoder_2 (t5-path), vae (vae-path), tokenizers' "$log" &&
    grep -q '^lacks  *tokenizers (tokenizer-path)' "$log" && grep -q 'memory  *20.5 MB as bfloat16 (CUDA), 41.0 MB' "$log"
  check /tools/doctor/what-files-lack-and-take $?
  expect /tools/doctor/adapters-and-a-part "$doctor" "$model/../cyanotype.safetensors" "$model/vae"
  grep -q '^adapters (loras)' "$log" && grep -q '^  modules  44, rank 8$' "$log" && grep -q '^vae (vae-path)' "$log"
  check /tools/doctor/says-what-adapters-are $?
  expect /tools/doctor/a-file-with-parts "$doctor" made/flux.gguf "vae-path=$model" clip-path=made/clip.safetensors \
    t5-path=made/t5.gguf "tokenizer-path=$model" max-area=65536
fi
"$doctor" --rates >"$log" 2>&1
grep -q '^cpu .* reaches [0-9.]* TFLOP/s and [0-9.]* TB/s' "$log"
check /tools/doctor/rates $?
"$doctor" /nowhere >"$log" 2>&1
[ $? -eq 1 ] && grep -q '/nowhere' "$log"
check /tools/doctor/no-model $?
# Headers that are no header: too deep for a parser that calls itself, values of other types. A file, and beside a model.
cp -r "$model" strange
python3 - <<'P'
import struct
for name, text in (("deep", b'{"a":' + b"[" * 300000 + b"]" * 300000 + b"}"), ("empty", b'{"a":{}}'),
                   ("types", b'{"__metadata__":{"fluxkontext.pack":{}},"a":{"shape":3,"dtype":[],"data_offsets":[{},[]]}}'),
                   ("short", b'{"a":{"shape":[],"dtype":1,"data_offsets":[1]}}')):
    for folder in (".", "strange"):
        open(f"{folder}/{name}.safetensors", "wb").write(struct.pack("<Q", len(text)) + text)
P
status=0
for name in deep empty types short; do
  "$doctor" "$name.safetensors" >"$log" 2>&1
  [ $? -eq 1 ] && grep -q "^fluxkontext-doctor: $name.safetensors: " "$log" && ! grep -q CRITICAL "$log" || status=1
done
"$doctor" /dev/null >"$log" 2>&1
[ $? -eq 1 ] && grep -q '^fluxkontext-doctor: model-path /dev/null: expected a folder or a regular file, found a character device$' "$log"
check /tools/doctor/a-device $?
# Files of something else: one line that says so, whatever the others are; a part with a tensor of another size.
python3 - "$model" <<'P'
import json, struct, sys
text = b'{"model.layers.0.q.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
open("other.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + bytes(8))
data = open(sys.argv[1] + "/vae/diffusion_pytorch_model.safetensors", "rb").read()
size = struct.unpack("<Q", data[:8])[0]
head = json.loads(data[8:8 + size])
head["decoder.conv_in.bias"]["shape"] = [head["decoder.conv_in.bias"]["shape"][0] // 2, 2]
text = json.dumps(head).encode()
open("misfit.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data[8 + size:])
P
"$doctor" other.safetensors >"$log" 2>&1
[ $? -eq 1 ] && [ "$(cat "$log")" = "fluxkontext-doctor: other.safetensors: expected a part of a model that this program knows, \
or adapters, found 1 tensors of other names" ]
check /tools/doctor/another-program-s-file $?
"$doctor" other.safetensors "$model/vae" >"$log" 2>&1
[ $? -eq 1 ] && grep -q '^fluxkontext-doctor: other.safetensors: ' "$log" && grep -q '^vae (vae-path)' "$log"
check /tools/doctor/another-program-s-file-and-ours $?
"$doctor" misfit.safetensors >"$log" 2>&1
[ $? -eq 1 ] && grep -q '^  wrong .*decoder.conv_in.bias' "$log"
check /tools/doctor/a-part-that-does-not-fit $?
"$doctor" strange >"$log" 2>&1 && ! grep -q CRITICAL "$log" || status=1
check /tools/doctor/strange-headers $status
"$doctor" --plan 0x16 >"$log" 2>&1
[ $? -eq 1 ] && grep -q '0x16' "$log"
check /tools/doctor/bad-size $?
for words in "$model again" "$model nothing=1" "nothing=1" "--config=dev" "--float32 $model"; do
  # shellcheck disable=SC2086
  "$doctor" $words >"$log" 2>&1
  [ $? -eq 1 ] && grep -q "again\|nothing\|--plan" "$log"
  check "/tools/doctor/refuses ${words##*/}" $?
done

# ---- fluxkontext-bench ----

# A path that is neither JSON nor Markdown by nature.
quoted="model \"of\" \\ one"
ln -s "$model" "$quoted"
small='-s 64x64 -n 1 max-area=4096 steps=2 backend=cpu'
# shellcheck disable=SC2086
expect /tools/bench/runs "$bench" -m "$quoted" $small -o -w -j bench.json -p bench.png
python3 - "$quoted" "$FK_SOURCE/docs/tuning.md" >>"$log" 2>&1 <<'EOF'
import json, re, sys
d = json.load(open('bench.json'))
assert d['model'] == sys.argv[1], d['model']
assert d['edit_ms'] > 0 and d['ceiling_tflops'] > 0 and d['ceiling_tbs'] > 0 and d['ceilings'] == 'measured here'
assert all(op['ms'] >= 0 for op in d['ops']) and len(d['groups']) > 4
# Each optimization of the table has its line, and each preset.
table = open(sys.argv[2]).read()
names = re.findall(r'^\| `([a-z-]+)` \| (?:same|rounding|lossy) ', table, re.M)
seen = [s['set'] for s in d['switches']]
assert len(names) > 9
assert not [n for n in names + ['preset'] if not any(s.startswith(n + '=') for s in seen)], seen
assert all('refused' in s or s['edit_ms'] > 0 for s in d['switches'])
assert 'refused' not in d['switches'][0], d['switches'][0]
EOF
check /tools/bench/json $?
[ "$(identify -format %m bench.png 2>>"$log")" = PNG ]
check /tools/bench/plot $?
for option in --json --plot; do
  # shellcheck disable=SC2086
  "$bench" -m "$model" $small $option /dev/full >"$log" 2>&1
  [ $? -eq 1 ] && grep -q '/dev/full: No space left' "$log"
  check "/tools/bench/full-disk$option" $?
done
# shellcheck disable=SC2086
"$bench" -m "$model" $small >/dev/full 2>"$log"
[ $? -eq 1 ] && grep -q 'standard output: No space left' "$log"
check /tools/bench/full-disk $?
for words in "-m $model -s 64" "-m $model -n 0" "-m $model again" "steps=2"; do
  # shellcheck disable=SC2086
  "$bench" $words >"$log" 2>&1
  [ $? -eq 1 ] && [ "$(grep -c '^fluxkontext-bench: ' "$log")" -eq 1 ]
  check "/tools/bench/refuses ${words##*/}" $?
done

# ---- fluxkontext-calibrate ----

calibrate=$FK_BUILD/examples/fluxkontext-calibrate
mkdir pictures
cp "$photo" pictures/
echo 'make it night' >pictures/coffee_256.txt
expect /tools/calibrate/writes "$calibrate" -o scales.json "$model" pictures steps=1 backend=cpu
expect /tools/calibrate/edits "$edit" -m "$model" -p 'make it night' "$photo" static.png steps=1 backend=cpu \
  quantization=fp8-static calibration-path=scales.json
"$edit" -m "$model" -p 'make it night' "$photo" static.png steps=1 backend=cpu quantization=fp8-static >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'needs a file of fluxkontext-calibrate' "$log"
check /tools/calibrate/without $?
mkdir empty
"$calibrate" "$model" empty backend=cpu >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'empty: no PNG or JPEG files' "$log"
check /tools/calibrate/no-pictures $?

# ---- fluxkontext-quality ----

# Without a model at hand: machine-readable results of one small run.
(cd "$FK_SOURCE" && "$quality" -m "$model" -b cpu -t named -n 1 --only nothing -s "$FK_SOURCE/tests/quality/settings.txt" \
  -o "$scratch/lab" --report >"$log" 2>&1)
[ $? -eq 1 ] && grep -q 'machine.txt' "$log"
check /tools/quality/report-of-nothing $?
printf 'one-step: steps=1\ntwo-steps: steps=2\n' >settings.txt
(cd "$FK_SOURCE" && "$quality" -m "$model" -b cpu -t named -n 1 -s "$scratch/settings.txt" -o "$scratch/lab" \
  --doc "$scratch/doc.md") >"$log" 2>&1
check /tools/quality/runs $?
python3 - >>"$log" 2>&1 <<'EOF'
import json
d = json.load(open('lab/summary.json'))
assert [s['setting'] for s in d['named']] == ['exact', 'one-step', 'two-steps']
assert all(isinstance(s['psnr'], (int, float)) for s in d['named'])
rows = [json.loads(line) for line in open('lab/results.jsonl')]
assert len(rows) == 3 and all(row['ms'] > 0 for row in rows)
assert '| one-step | 1 | ' in open('doc.md').read()
EOF
check /tools/quality/json $?

# Four steps with the LoRA for few steps are much nearer to 28 than four without (24.1 and 12.2 dB).
printf 'four: steps=4\nlora: steps=4 loras=%s\n' "$FK_SOURCE/examples/demo-model/few-step.safetensors" >few.txt
(cd "$FK_SOURCE" && "$quality" -m "$model" -b cpu -t open -n 1 -s "$scratch/few.txt" -o "$scratch/few") >"$log" 2>&1 &&
  python3 - >>"$log" 2>&1 <<'EOF'
import json
psnr = {row['setting']: row['psnr'] for row in map(json.loads, open('few/results.jsonl'))}
assert psnr['lora'] > psnr['four'] + 10, psnr
EOF
check /tools/quality/few-step-lora $?

(cd "$FK_SOURCE" && "$quality" -m "$model" -b cpu --layers -t named --json) >layers.json 2>"$log" && python3 - >>"$log" 2>&1 <<'EOF'
import json
d = json.load(open('layers.json'))
names = [row['name'] for row in d['layers']]
assert d['edits'] == 1 and 'single_transformer_blocks.0.proj_out' in names and len(set(names)) == len(names)
assert all(0 < row['error'] < 0.1 for row in d['layers'] if 'transformer_blocks' in row['name'])
EOF
check /tools/quality/layers $?
# A folder of one's own pictures: settings are sought, the worst case of each is drawn, and the same command goes on.
mkdir own && convert -size 64x48 gradient:red-blue own/b.PNG
printf 'make it night\n\n' >own/prompts.txt
calibrate() {
  "$quality" -m "$model" -b cpu -s settings.txt -o sought --calibrate own --search 1 --floor 1 --ssim 0 --by 1 "$@" >"$log" 2>&1
}
calibrate --worst && [ -s sought/worst.png ] && python3 - >>"$log" 2>&1 <<'EOF'
import json
rows = [json.loads(line) for line in open('sought/results.jsonl')]
assert {row['case'] for row in rows} == {'b.PNG-1'}
found = [s for s in json.load(open('sought/summary.json'))['open'] if s['setting'].startswith('found-')]
assert found and all(0 < s['worst_ssim'] <= s['ssim'] <= 1 for s in found), found
EOF
check /tools/quality/calibrates $?
before=$(wc -l <sought/results.jsonl)
calibrate --resume && [ "$(wc -l <sought/results.jsonl)" -eq "$before" ]
check /tools/quality/calibration-goes-on $?
mkdir bare && "$quality" -m "$model" -b cpu -o sought --calibrate bare >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'bare: no PNG or JPEG picture' "$log"
check /tools/quality/calibrates-no-pictures $?
# The project's own files are sought below the working directory; what is not there is told with its option.
"$quality" -m "$model" -b cpu -o no-files >"$log" 2>&1
[ $? -eq 1 ] && grep -q '^fluxkontext-quality: --cases: .*tests/quality/cases.json' "$log"
check /tools/quality/no-cases $?
"$quality" -m "$model" -b cpu -o no-files --cases "$FK_SOURCE/tests/quality/cases.json" >"$log" 2>&1
[ $? -eq 1 ] && grep -q '^fluxkontext-quality: --settings: .*tests/quality/settings.txt' "$log"
check /tools/quality/no-settings $?
"$quality" --json >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'json is for --layers' "$log"
check /tools/quality/json-alone $?

# ---- fluxkontext-edit-image ----

golden=$FK_SOURCE/tests/golden/inpaint
expect /tools/edit-image/mask "$edit" -m "$model" -p 'invert the colors' --mask "$golden/mask.png" \
  --reference "$photo" "$golden/source.png" masked.png backend=cpu steps=1 max-area=17920
"$edit" -m "$model" -p x --mask "$golden/none.png" "$golden/source.png" masked.png >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'none.png' "$log"
check /tools/edit-image/mask-missing $?
# preset=few-step is four steps and wants an adapter; one's own steps win wherever they stand.
"$edit" -m "$model" -p x "$photo" few.png preset=few-step max-area=4096 backend=cpu >"$log" 2>&1
[ $? -eq 0 ] && grep -q 'loras changes nothing: .*preset=few-step' "$log"
check /tools/edit-image/few-step-wants-an-adapter $?
for words in 'steps=2' 'steps=2 preset=few-step' 'preset=few-step steps=2'; do
  # shellcheck disable=SC2086
  "$edit" -m "$model" -p x "$photo" "$(echo "$words" | tr ' ' -).png" $words max-area=4096 backend=cpu >>"$log" 2>&1 || break
done
cmp steps=2.png steps=2-preset=few-step.png >>"$log" && cmp steps=2.png preset=few-step-steps=2.png >>"$log" &&
  ! cmp -s steps=2.png few.png
check /tools/edit-image/own-steps-win $?

expect /tools/edit-image/runs "$edit" -m "$model" -p 'make it night' "$photo" tool.png seed=1 backend=cpu
compare -metric PAE tool.png "$FK_SOURCE/tests/golden/edits/square-1.png" null: >"$log" 2>&1
sed 's/.*(\(.*\)).*/\1/' "$log" | awk '{exit !($1 != "" && $1 * 255 <= 2.001)}'
check /tools/edit-image/within-2-of-the-reference $?
# The judge's checkpoint, a local edit.
"$edit" -m "$FK_SOURCE/examples/demo-model/judge" -p 'turn the mushroom purple' "$FK_SOURCE/tests/quality/judge/crocodile-mushroom.jpg" \
  judge.png seed=7 backend=cpu >"$log" 2>&1 &&
  compare -metric PAE judge.png "$FK_SOURCE/tests/golden/edits/judge.png" null: >"$log" 2>&1
sed 's/.*(\(.*\)).*/\1/' "$log" | awk '{exit !($1 != "" && $1 * 255 <= 2.001)}'
check /tools/edit-image/judge-within-2-of-the-reference $?
# One rule for pixels: gAMA and EXIF change nothing that the element does not see, and turn what a viewer turns.
few='steps=1 max-area=4096 seed=1 backend=cpu'
pictures=$FK_SOURCE/tests/golden/pictures
for kind in plain gamma profile interlaced; do
  # shellcheck disable=SC2086
  "$edit" -m "$model" -p 'make it night' "$pictures/$kind.png" $kind.png $few >"$log" 2>&1 && cmp plain.png $kind.png >>"$log" 2>&1
  check "/tools/edit-image/same-pixels/$kind" $?
done
# shellcheck disable=SC2086
expect /tools/edit-image/jpeg-to-jpeg "$edit" -m "$model" -p 'make it night' "$pictures/turned-6.jpg" turned.jpg $few
[ "$(identify -format '%m %wx%h' turned.jpg 2>"$log")" = "JPEG 22x31" ]
check /tools/edit-image/turned-as-exif-says $?
# A prompt that is not ASCII, as an option and as a property, also where the locale says nothing of UTF-8.
for locale in C C.UTF-8 ${LC_ALL:-C.UTF-8}; do
  # shellcheck disable=SC2086
  LC_ALL=$locale "$edit" -m "$model" -p 'mach es größer – 夜' "$photo" a.png $few >"$log" 2>&1 &&
    LC_ALL=$locale "$edit" -m "$model" "$photo" b.png prompt='mach es größer – 夜' $few >"$log" 2>&1 && cmp a.png b.png >"$log" 2>&1
  check "/tools/edit-image/prompt/$locale" $?
done
"$edit" -m "$model" -p "$(printf 'a\377b')" "$photo" a.png >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'neither UTF-8 nor' "$log"
check /tools/edit-image/prompt/not-text $?
"$edit" -m "$model" -p x /nowhere.png tool.png >"$log" 2>&1
[ $? -eq 1 ] && grep -q '/nowhere.png' "$log"
check /tools/edit-image/no-picture $?
"$edit" -m "$model" -p x "$FK_SOURCE/README.md" tool.png >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'neither PNG nor JPEG' "$log"
check /tools/edit-image/other-format $?
"$edit" -m /nowhere -p x "$photo" tool.webp >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'tool.webp: .*\.png, \.jpg or \.jpeg' "$log"
check /tools/edit-image/other-name $?
# What cannot be written is told before the model is opened: a FIFO that nobody reads, a folder, one that is not there.
mkfifo unread.png && mkdir folder.d.png
for case in 'unread.png nobody reads it' 'folder.d.png found a folder' 'no-folder/a.png No such file'; do
  "$edit" -m /nowhere -p x "$photo" "${case%% *}" >"$log" 2>&1
  [ $? -eq 1 ] && grep -q "${case%% *}: .*${case#* }" "$log"
  check "/tools/edit-image/not-writable/${case%% *}" $?
done
"$edit" -m /nowhere -p x "$photo" a.png trace-file=unread.png >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'trace-file unread.png: nobody reads it' "$log"
check /tools/edit-image/not-writable/trace-file $?
"$bench" -m /nowhere --json no-folder/a.json >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'no-folder/a.json: No such file' "$log"
check /tools/bench/not-writable $?
"$FK_BUILD/examples/fluxkontext-calibrate" -o no-folder/a.json /nowhere . >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'no-folder/a.json: No such file' "$log"
check /tools/calibrate/not-writable $?
(cd "$FK_SOURCE" && "$quality" -m /nowhere -o "$scratch/no-doc" -d no-folder/a.md) >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'no-folder/a.md: No such file' "$log"
check /tools/quality/not-writable $?
"$edit" -m /nowhere -p x "$pictures/alpha.png" tool.jpg >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'tool.jpg: JPEG has no transparency' "$log"
check /tools/edit-image/transparency $?
"$edit" -m "$model" -p x "$photo" tool.png steps=none >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'steps: "none"' "$log"
check /tools/edit-image/bad-value $?
"$edit" >"$log" 2>&1
[ $? -eq 2 ]
check /tools/edit-image/usage $?
# A full disk leaves an error and no picture.
ln -s /dev/full full.png
# shellcheck disable=SC2086
"$edit" -m "$model" -p x "$photo" full.png $few >"$log" 2>&1
[ $? -eq 1 ] && grep -q 'full.png: No space left' "$log"
check /tools/edit-image/full-disk $?
# An interrupt ends it within a step, and nothing half-written stays.
"$edit" -m "$model" -p x "$photo" interrupted.png steps=300 backend=cpu >"$log" 2>&1 &
child=$!
wait_for watches_signals
kill -INT $child 2>"$log"
wait $child
[ $? -eq 130 ] && [ ! -e interrupted.png ]
check /tools/edit-image/interrupt $?

done_testing
