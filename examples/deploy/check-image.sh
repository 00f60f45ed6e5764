#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the Containerfile's steps in two minimal Debian 12 trees, where no container engine is: builds in the first, and in
# the second, which has only what was copied and what `image.sh run-packages` installs, starts the server as the user of
# the image and edits a picture. Needs root, debootstrap, curl; makes about 3 GB below FOLDER. CPU only: no nvcc in the tree.
#   usage: check-image.sh FOLDER
set -eu
[ $# -eq 1 ] && [ "$(id -u)" -eq 0 ] || { sed -n '3,6s/^# \{0,1\}//p' "$0"; exit 2; }
source=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
port=${PORT:-8473}

# tree NAME: a minimal Debian 12 that fetches packages as this machine does.
tree() {
  rm -rf --one-file-system "${folder:?}/$1"
  debootstrap --variant=minbase --include=ca-certificates bookworm "$folder/$1" >"$folder/$1.log"
  for file in etc/apt etc/ssl/certs etc/resolv.conf; do
    rm -rf "$folder/$1/$file"
    cp -a "/$file" "$folder/$1/$file"
  done
}

# inside NAME COMMAND...: as root in the tree; with AS=UID as that user.
inside() {
  name=$1
  shift
  unshare -m sh -c 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot --userspec="$1" "$0" env -i \
    PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/tmp GST_REGISTRY=/tmp/gstreamer-registry LC_ALL=C.UTF-8 \
    sh -c "$2"' "$folder/$name" "${AS:-0}:${AS:-0}" "$*"
}

echo "1. build"
tree build
git -C "$source" archive --prefix=src/ HEAD | tar -x -C "$folder/build"
inside build 'cd /src && examples/deploy/image.sh build-packages && examples/deploy/image.sh build /out' >"$folder/build.log" 2>&1
echo "2. run"
tree run
cp "$source/examples/deploy/image.sh" "$folder/run/usr/local/bin/"
cp -a "$folder/build/out/." "$folder/run/"
inside run 'image.sh run-packages' >"$folder/run.log" 2>&1
rm "$folder/run/usr/local/bin/image.sh"
cp -a "$source/examples/demo-model/checkpoint" "$folder/run/model"
chmod -R a+rX "$folder/run/model"
du -sh "$folder/run" | sed 's/\t.*/ in the image/'
# Nothing that was built lacks a library.
missing=$(inside run 'find /usr/bin/fluxkontext* /usr/lib -name "*fluxkontext*" -type f | xargs ldd 2>/dev/null | grep "not found" || true')
[ -z "$missing" ] || { echo "libraries are missing: $missing"; exit 1; }
AS=65532 inside run 'fluxkontext-server --version && gst-inspect-1.0 fluxkontextedit | grep -m1 Long-name'
printf 'a token of the check\n' >"$folder/run/tmp/token"
chown 65532:65532 "$folder/run/tmp/token"
chmod 600 "$folder/run/tmp/token"
AS=65532 inside run "exec fluxkontext-server -m /model --listen 0.0.0.0:$port --token-file /tmp/token --exit-idle 5" >"$folder/server.log" 2>&1 &
server=$!
until curl -sf "localhost:$port/readyz" >/dev/null; do
  kill -0 $server 2>/dev/null || { cat "$folder/server.log"; exit 1; }
  sleep 0.2
done
curl -sSf "localhost:$port/v1/edits" -H "Authorization: Bearer a token of the check" -H 'Accept: image/png' \
  -F image=@"$source/examples/demo-model/photos/coffee_256.png" -F prompt='make it night' -F seed=1 -F steps=4 -o "$folder/night.png"
file "$folder/night.png"
wait $server # nobody asks any more
echo "the server ended with status $?"
