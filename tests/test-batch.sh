#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fluxkontext-batch from outside: odd pictures, what is kept of a file, kills, interrupts, shards, disks that fail.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/batch.sh"
odd_photos photos >"$log" 2>&1
check /batch/pictures $?

# ---- An undisturbed run ----

run calm photos
[ $? -eq 1 ] && grep -q '17 done, 0 done before, 3 failed' "$log" && [ "$(grep -c '^  failed: photos/broken-' "$log")" -eq 3 ]
check /batch/odd-pictures $?
grep -q 'broken-short.jpg: .*end of input' "$log" && grep -q 'broken-empty.webp: not a PNG' "$log" && ! grep -q VIPS- "$log"
check /batch/broken-ones-say-why $?
grep -q '16-bit.png: .*cut to 8 bits' "$log" && grep -q 'cmyk.jpg: .*from cmyk to sRGB' "$log" &&
  grep -q 'animated.png: .*first of 2 frames' "$log"
check /batch/notes $?
whole calm
check /batch/records $?
[ "$(find calm -type f | wc -l)" -eq 34 ]
check /batch/nothing-else $?
# The pixels that the model sees are those of the other tools, whatever the format is.
for name in plain-1.png exif-rotated.jpg alpha.png; do
  # shellcheck disable=SC2086
  "$edit" -m "$model" -p 'make it night' "photos/$name" "one.${name#*.}" $few >"$log" 2>&1
  if [ "${name#*.}" = png ]; then
    [ "$(identify -format '%#' "one.png" 2>>"$log")" = "$(identify -format '%#' "calm/$name" 2>>"$log")" ]
  else
    [ "$(identify -format '%w %h' one.jpg 2>>"$log")" = "$(identify -format '%w %h' "calm/$name" 2>>"$log")" ]
  fi
  check "/batch/same-pixels-as-edit-image/$name" $?
done
cmp calm/16-bit.png calm/plain-1.png >"$log" 2>&1 && cmp calm/alpha-16-bit.png calm/alpha.png >>"$log" 2>&1
check /batch/16-bits-are-cut $?
vips getpoint calm/alpha.png 5 5 >"$log" 2>&1
[ "$(awk '{print $4}' "$log")" = 102 ]
check /batch/alpha-is-kept $?
vipsheader -a calm/icc.tif >"$log" 2>&1
grep -q icc-profile-data "$log"
check /batch/profile-is-kept $?
vipsheader -a calm/exif-rotated.jpg >"$log" 2>&1
grep -q exif-data "$log" && ! grep -q '^orientation: [2-8]' "$log"
check /batch/exif-is-kept-and-applied $?
[ "$(vipsheader -f height calm/huge.jpg 2>"$log")" -eq 2400 ]
check /batch/huge $?

# ---- Killed and resumed ----

killed=0
for stop in 3 9; do
  # shellcheck disable=SC2086
  nice "$batch" -m "$model" -p 'make it night' -o killed --resume photos $few >"$log" 2>&1 &
  child=$!
  records killed $stop && kill -9 $child && killed=$((killed + 1))
  wait $child 2>/dev/null
  whole killed
  check "/batch/killed/whole-after-$stop" $?
done
[ $killed -eq 2 ]
check /batch/killed/twice $?
run killed --resume photos
[ $? -eq 1 ] && grep -q ' done before, 3 failed, 0 left' "$log" && ! grep -q '17 done' "$log"
check /batch/killed/resumed $?
same calm killed
check /batch/killed/same-bytes $?
run killed --resume photos
grep -q ' 0 done, 17 done before, 3 failed' "$log"
check /batch/resume-does-nothing-twice $?
# A result that was touched, and one that other settings ask for, are made again.
printf x >>killed/plain-1.png
run killed --resume photos
grep -q ' 1 done, 16 done before, 3 failed' "$log" && same calm killed
check /batch/resume-mends-a-changed-result $?
run killed --resume photos/plain-1.png photos/plain-2.png prompt='make it day'
grep -q ' 2 done, 0 done before' "$log"
check /batch/resume-sees-other-settings $?
run killed photos/plain-1.png
[ $? -eq 1 ] && grep -q 'is there already' "$log"
check /batch/nothing-is-replaced-unasked $?
run killed --overwrite photos/plain-1.png photos/plain-2.png
same calm killed
check /batch/overwrite $?

# ---- Shards, batches ----

seq 7 | xargs -P 3 -I % "$batch" -m "$model" -p 'make it night' -o shards --shard %/7 --progress none photos \
  steps=1 max-area=4096 seed=3 backend=cpu >"$log" 2>&1
same calm shards
check /batch/shards $?
run batches --batch 4 photos
same calm batches
check /batch/batches $?
for shard in 0/7 8/7 1 1/0 1/2x; do
  run never --shard $shard photos
  [ $? -eq 1 ] && grep -q -- '--shard: ' "$log" && [ ! -e never ]
  check "/batch/refuses-shard $shard" $?
done

# ---- Interrupts ----

# interrupted OUT: starts edits that take long enough to be interrupted; $child.
interrupted() {
  "$batch" -m "$model" -p 'make it night' -o "$1" photos steps=${2:-4} max-area=16384 backend=cpu >"$log" 2>&1 &
  child=$!
}
interrupted first
records first 2
kill -INT $child
wait $child
[ $? -eq 130 ] && grep -q 'a second interrupt drops it' "$log" && grep -q '; interrupted$' "$log" && ! grep -q ' 0 left' "$log"
check /batch/interrupt/first $?
whole first && [ "$(find first -name '.*' -type f | wc -l)" -eq 0 ]
check /batch/interrupt/first-leaves-whole-files $?
interrupted second 300
wait_for [ -e second ]
sleep 0.3
kill -INT $child
wait_for grep -q 'a second interrupt' "$log"
kill -TERM $child
wait $child
[ $? -eq 130 ] && whole second && [ "$(find second -name '.*' -type f | wc -l)" -eq 0 ]
check /batch/interrupt/second $?

# ---- Disks ----

# A limit of 20 kB a file stands for a disk that fills up, also for root.
(trap '' XFSZ && ulimit -f 40 && run full photos/plain-1.png photos/plain-2.png photos/tiny.png)
grep -q 'full/plain-1.png: File too large' "$log" && [ ! -e full/plain-1.png ] && [ -e full/tiny.png ] && whole full &&
  [ "$(find full -name '.*' -type f | wc -l)" -eq 0 ]
check /batch/file-too-large $?
run /proc/fluxkontext photos
[ $? -eq 1 ] && grep -q '^fluxkontext-batch: /proc/fluxkontext' "$log"
check /batch/no-such-folder-can-be-made $?
if unshare -rm true 2>/dev/null; then
  mkdir small
  unshare -rm sh -c 'mount -t tmpfs -o size=256k none small && "$@" >log2 2>&1; echo $? >>log2; ls -a small >>log2' sh \
    "$batch" -m "$model" -p x -o small photos steps=1 max-area=4096 backend=null 2>>"$log"
  cat log2 >"$log"
  grep -q 'No space left' "$log" && grep -q 'the folder cannot be written' "$log" && grep -qx 1 "$log" && ! grep -q 'tmp$' "$log"
  check /batch/full-disk $?
  unshare -rm sh -c 'mount -t tmpfs -o ro none small && "$@"' sh "$batch" -m "$model" -p x -o small photos backend=null >"$log" 2>&1
  [ $? -eq 1 ] && grep -q 'small: Read-only file system' "$log"
  check /batch/read-only-folder $?
else
  skip /batch/full-disk "mounts are not allowed here"
  skip /batch/read-only-folder "mounts are not allowed here"
fi

done_testing
