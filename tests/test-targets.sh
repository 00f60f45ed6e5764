#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the tools and the element write over: a regular file is replaced, a FIFO that is read is written into through its
# link, a socket is refused; all but the first stay what they are (tests/test-file.c has every kind). Every name is in the
# scratch folder.
. "$(dirname "$0")/tap.sh"
tools=$FK_BUILD/examples
model=$FK_SOURCE/examples/demo-model/checkpoint
few='steps=1 max-area=4096 backend=cpu'
mkdir one && convert -size 64x64 gradient:red-blue one/a.png
echo '[{"tier": "open", "id": "a", "kind": "photo", "prompt": "", "seed": 0, "input": "one/a.png"}]' >cases.json
printf '[open]\neuler-1: steps=1\n' >settings.txt
expect /targets/rows "$tools/fluxkontext-quality" -m "$model" -b cpu --cases cases.json -s settings.txt -o rows

# write WHAT PATH: the shortest way to write this file, which is PATH with the ending that it wants.
write() {
  # shellcheck disable=SC2086
  case $1 in
    edit-image) "$tools/fluxkontext-edit-image" -m "$model" -p 'make it night' one/a.png "$2" $few ;;
    trace-file) "$tools/fluxkontext-edit-image" -m "$model" -p 'make it night' one/a.png trace.png $few "trace-file=$2" ;;
    batch) "$tools/fluxkontext-batch" -m "$model" -p 'make it night' -o "${2%/*}" --overwrite one $few ;;
    calibrate) "$tools/fluxkontext-calibrate" -o "$2" "$model" one steps=1 max-area=4096 backend=cpu ;;
    bench) "$tools/fluxkontext-bench" -m "$model" -s 64x64 -n 1 --json "$2" $few ;;
    quality) "$tools/fluxkontext-quality" -m "$model" --cases cases.json -s settings.txt --report -o rows -d "$2" --text one/a.png ;;
    manifest-path)
      gst-launch-1.0 -q videotestsrc num-buffers=1 ! video/x-raw,format=RGB,width=64,height=64 ! fluxkontextedit backend=null \
        steps=1 max-area=65536 prompt=night "manifest-path=$2" ! fakesink ;;
  esac
}

# kind PATH: what there is, its number and, of a link, where it leads.
kind() {
  stat -c '%F %i %N' "$1"
}

# Whatever writes a file by another name first keeps the rule, by fk_file_target or fk_file_write.
grep -lE 'g_file_set_contents|g_file_replace|(^|[^a-z_])(g_)?rename(at2?)? ?\(' -r "$FK_SOURCE"/core "$FK_SOURCE"/gst "$FK_SOURCE"/examples \
  --include='*.c' | sed "s|^$FK_SOURCE/||" | sort >"$log"
[ "$(tr '\n' ' ' <"$log")" = 'core/files/file-write.c core/packing.c examples/batch/write.c ' ]
check /targets/one-rule $?

for case in edit-image/a.png trace-file/a.json batch/a.png calibrate/a.json bench/a.json quality/a.md manifest-path/a.json; do
  what=${case%/*}
  mkdir -p "$what"
  echo old >"$case"
  expect "/targets/$what/replaces" write "$what" "$scratch/$case"
  [ -s "$case" ] && [ "$(head -c 4 "$case" | tr -d '\0')" != old ]
  check "/targets/$what/is-whole" $?

  rm "$case" && mkfifo "$what/fifo" && ln -s fifo "$case"
  before=$(kind "$case")$(kind "$what/fifo")
  exec 3<>"$what/fifo" 4<"$what/fifo" # the reader is there before the tool, and has its end when 3 is closed
  cat <&4 3>&- >"$what.read" &
  expect "/targets/$what/writes-into" write "$what" "$scratch/$case"
  exec 3>&- 4<&-
  wait $!
  [ -s "$what.read" ] && [ "$(kind "$case")$(kind "$what/fifo")" = "$before" ]
  check "/targets/$what/was-read" $?

  rm "$case" "$what/fifo"
  python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$case"
  before=$(kind "$case")
  write "$what" "$scratch/$case" >"$log" 2>&1
  [ $? -ne 0 ] && grep -q 'found a socket' "$log" && [ "$(kind "$case")" = "$before" ]
  check "/targets/$what/refuses" $?
  left=$(find . -name '.fluxkontext-*')
  [ -z "$left" ]
  check "/targets/$what/leaves-nothing" $?
done
done_testing
