#!/bin/sh
# Installs what building, running and testing need on Debian 12, with apt-get; does nothing when all of it is there.
#   usage: examples/install-deps.sh [--tools | --tests]
# --tools: also for the batch tools, the server and the worker; --tests: also for all tests
set -eu
packages="meson ninja-build pkg-config gcc g++ libc6-dev libglib2.0-dev libjson-glib-dev libsentencepiece-dev
  libopenblas-pthread-dev libpng-dev libjpeg-dev libcairo2-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev gstreamer1.0-tools
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good imagemagick fonts-dejavu-core python3"
case ${1:-} in --tools | --tests) packages="$packages libvips-dev libcurl4-openssl-dev libnats-dev libsoup-3.0-dev libwebp-dev" ;; esac
[ "${1:-}" != --tests ] || packages="$packages clang cppcheck locales groff-base haproxy nats-server libvips-tools python3-gi gir1.2-gstreamer-1.0"

# Upstream's elements for frames in CUDA memory, which run on a stand-in driver.
[ "${1:-}" != --tests ] || packages="$packages gstreamer1.0-plugins-bad"

# Fk-1.0.gir, which the tests of other languages need.
[ "${1:-}" != --tests ] || packages="$packages libgirepository1.0-dev"

missing=
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "installing with apt-get:$missing"
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "these packages are missing and only root can install them" >&2; exit 1; }
  exec sudo "$0" "$@"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing >/dev/null
