#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whether two builds compute the same bytes, and which is faster, on the machine with the GPU.
#
#   usage: tests/gpu/compare-builds.sh BEFORE AFTER MODEL WIDTHxHEIGHT STEPS RUNS [PROPERTY=VALUE ...]
#
# BEFORE, AFTER: build folders, or prefixes with bin/ (hash-forward, fkcuda.so) and lib/. hash-forward has to be there in
# both; a build of older sources gets it by
#   cc -I SOURCE/core hash-forward.c $(pkg-config --cflags --libs gio-2.0) -L BUILD/core -lfluxkontext \
#     -o BUILD/hash-forward
# The builds run in turn, three times each, because a card that gets warm gets slower: times are the medians of each.
# Exit status 1 if a hash differs.
set -eu
before=$(cd "$1" && pwd) after=$(cd "$2" && pwd)
shift 2
out=$(mktemp -d /tmp/compare-builds.XXXXXX)

find_first() { # FILE...
  for f in "$@"; do [ ! -e "$f" ] || { echo "$f"; return; }; done
  echo "compare-builds.sh: none of these is there: $*" >&2
  return 1
}

hash_forward() { # BUILD ARGUMENTS...
  build=$1
  shift
  program=$(find_first "$build/tests/gpu/hash-forward" "$build/bin/hash-forward" "$build/hash-forward")
  module=$(find_first "$build/kernels/fkcuda.so" "$build/bin/fkcuda.so")
  FK_CUDA_MODULE=$module LD_LIBRARY_PATH="$build/core:$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$program" "$@"
}

for i in 1 2 3; do
  hash_forward "$before" "$@" > "$out/before-$i"
  hash_forward "$after" "$@" > "$out/after-$i"
done
median() { cat "$out/$1"-? | sed -n "s/^time $2 //p" | sort -n | sed -n 2p; }
grep '^machine' "$out/after-1"
for name in step edit; do
  echo "$name: $(median before $name) ms before, $(median after $name) ms after"
done
grep -h '^hash' "$out"/before-? | sort -u > "$out/before"
grep -h '^hash' "$out"/after-? | sort -u > "$out/after"
if cmp -s "$out/before" "$out/after"; then
  echo "$(wc -l < "$out/before") hashes are equal"
  rm -r "$out"
else
  diff "$out/before" "$out/after" || true
  echo "hashes differ; logs: $out"
  exit 1
fi
