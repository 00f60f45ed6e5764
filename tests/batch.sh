# SPDX-License-Identifier: Apache-2.0
# What the tests of fluxkontext-batch have in common: pictures of odd kinds and what is asked of results. Sourced.
# shellcheck disable=SC2034
model=$FK_SOURCE/examples/demo-model/checkpoint
demo=$FK_SOURCE/examples/demo-model/photos
batch=$FK_BUILD/examples/fluxkontext-batch
edit=$FK_BUILD/examples/fluxkontext-edit-image
few='steps=1 max-area=4096 seed=3 backend=cpu'

if ! command -v vips >/dev/null || [ "${FK_VIPS:-1}" = 0 ]; then
  skip /batch "built without libvips, or no vips command"
  done_testing
fi

# odd_photos FOLDER: twenty pictures of odd kinds, made of the demo photos; 17 can be edited, 3 are broken. Needs vips and
# convert. Sourced.
odd_photos() {
  odd=$1
  from=$FK_SOURCE/examples/demo-model/photos
  mkdir -p "$odd" || return 1
  for i in 1 2 3; do
    name=$(echo coffee_256 rocket_256 shapes_256 | cut -d' ' -f$i)
    vips copy "$from/$name.png" "$odd/plain-$i.png" || return 1
  done
  vips copy "$from/coffee.png" "$odd/photo.jpg[Q=90]" &&
    vips copy "$FK_SOURCE/tests/golden/pictures/turned-6.jpg" "$odd/exif-rotated.jpg" &&
    convert "$from/rocket.png" -resize 120x -colorspace CMYK "$odd/cmyk.jpg" &&
    vips icc_export "$from/shapes_256.png" "$odd/icc.tif" --output-profile p3 &&
    vips copy "$from/coffee_256.png" "$odd/web.webp[Q=90]" &&
    vips colourspace "$from/coffee_256.png" "$scratch/16.v" rgb16 && vips copy "$scratch/16.v" "$odd/16-bit.png" &&
    vips copy "$scratch/16.v" "$odd/16-bit.tif" &&
    vips colourspace "$from/rocket_256.png" "$odd/grey.jpg" b-w &&
    convert "$from/coffee_256.png" -alpha set -channel A -evaluate set 40% +channel "PNG32:$odd/alpha.png" &&
    vips colourspace "$odd/alpha.png" "$scratch/16a.v" rgb16 && vips copy "$scratch/16a.v" "$odd/alpha-16-bit.png" &&
    vips arrayjoin "$from/coffee_256.png $from/rocket_256.png" "$scratch/film.v" --across 1 &&
    vips gifsave "$scratch/film.v" "$odd/animated.gif" --page-height 256 &&
    vips webpsave "$scratch/film.v" "$odd/animated.webp" --page-height 256 &&
    vips resize "$from/coffee.png" "$odd/huge.jpg" 6 &&
    vips black "$scratch/1.v" 3 2 --bands 3 && vips copy "$scratch/1.v" "$odd/tiny.png" || return 1
  head -c 9000 "$odd/photo.jpg" >"$odd/broken-short.jpg"
  head -c 3000 /dev/urandom >"$odd/broken-noise.png"
  : >"$odd/broken-empty.webp"
}

# run OUT WORDS...: the demo edit of the folder photos. Its output goes to $log.
run() {
  out=$1
  shift
  # shellcheck disable=SC2086
  "$batch" -m "$model" -p 'make it night' -o "$out" "$@" $few >"$log" 2>&1
}

# whole FOLDER: every record tells of an image that is there as it was written, and no image is half. $1 may have images
# without a record: they are whole, but nobody knows.
whole() {
  python3 - "$1" <<'EOF' >>"$log" 2>&1
import hashlib, json, os, sys
from pathlib import Path
folder = Path(os.fsencode(sys.argv[1]).decode('utf-8', 'surrogateescape'))
for record in folder.rglob('*.json'):
    file = json.loads(record.read_bytes())['file']
    image = record.with_suffix('')
    assert hashlib.sha256(image.read_bytes()).hexdigest() == file['sha256'], image
for image in folder.iterdir():
    if image.suffix == '.png' and image.name[0] != '.': assert image.read_bytes().endswith(b'IEND\xaeB`\x82'), image
EOF
}

# same A B: the same images, byte for byte, and a record for each; nothing else, hidden files included.
same() {
  for folder in "$1" "$2"; do
    (cd "$folder" && find . -type f ! -name '*.json' -exec sha256sum {} + | sort -k2 >"$scratch/sums-$folder")
    [ "$(find "$folder" -name '*.json' -printf x | wc -c)" -eq "$(wc -l <"$scratch/sums-$folder")" ] || return 1
    [ "$(find "$folder" -name '.*' -type f | wc -l)" -eq 0 ] || return 1
  done
  cmp "sums-$1" "sums-$2" >>"$log" 2>&1 && [ -s "sums-$1" ]
}

# records FOLDER N: waits until there are N; fails if the process $child ends before.
records() {
  while kill -0 $child 2>/dev/null; do
    [ "$(find "$1" -name '*.json' 2>/dev/null | wc -l)" -lt "$2" ] || return 0
    sleep 0.02
  done
  return 1
}
