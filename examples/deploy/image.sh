#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The steps of the Containerfile, on any Debian 12: so they can be run without a container too.
#   usage: image.sh build-packages        installs what building needs
#          image.sh build FOLDER          builds (with CUDA where nvcc is) and installs below FOLDER, as for /
#          image.sh run-packages          installs what the built programs need
set -eu
export DEBIAN_FRONTEND=noninteractive
case ${1:-} in
build-packages)
  "$(dirname "$0")/../install-deps.sh" --tools
  ;;
build)
  cd "$(dirname "$0")/../.."
  meson setup build/image --prefix=/usr --buildtype=release -Dtests=false
  ninja -C build/image
  DESTDIR=$2 meson install -C build/image --no-rebuild
  ;;
run-packages)
  apt-get update -q
  # shellcheck disable=SC2046
  apt-get install -y -q --no-install-recommends $(sed -n 's/^# run: //p' "$0") ca-certificates
  rm -rf /var/lib/apt/lists/*
  ;;
*)
  sed -n '4,6s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
# run: libglib2.0-0 libjson-glib-1.0-0 libsentencepiece0 libopenblas0-pthread libpng16-16 libjpeg62-turbo libcairo2
# run: libvips42 libsoup-3.0-0 libcurl4 libnats3.4 libgirepository-1.0-1
# run: gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
