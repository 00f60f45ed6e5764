#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Documents that are made from the program are up to date, and every path that a document names exists.
. "$(dirname "$0")/tap.sh"
"$FK_BUILD/examples/fluxkontext-doctor" --properties >tuning.md 2>"$log"
expect /documents/tuning diff -u "$FK_SOURCE/docs/tuning.md" tuning.md

# docs/quality.md begins with its written part; the rest are results.
head -n "$(wc -l <"$FK_SOURCE/tests/quality/head.md")" "$FK_SOURCE/docs/quality.md" >head.md
expect /documents/quality-head diff -u "$FK_SOURCE/tests/quality/head.md" head.md

# `core/settings/tune.c`, `tests/golden/make_edits.py`: what stands in backticks and looks like a file of the project.
for document in README.md CONTRIBUTING.md docs/architecture.md docs/element.md docs/model.md docs/quality.md docs/speed.md \
  docs/server.md docs/status.md docs/testing.md docs/tools.md; do
  : >"$log"
  grep -o '`[a-z][A-Za-z0-9_./-]*/[A-Za-z0-9_.-]*\.[a-z]*`' "$FK_SOURCE/$document" | tr -d '`' | sort -u |
    while read -r path; do
      case $path in
      core/* | gst/* | kernels/* | tests/* | examples/* | docs/*) [ -e "$FK_SOURCE/$path" ] || echo "missing: $path" ;;
      esac
    done >>"$log"
  # Links between documents.
  grep -o '](\([^)#]*\))' "$FK_SOURCE/$document" | sed 's/](\(.*\))/\1/' | grep -v '^http' |
    while read -r path; do
      [ -e "$(dirname "$FK_SOURCE/$document")/$path" ] || echo "missing link: $path"
    done >>"$log"
  [ ! -s "$log" ]
  check "/documents/$document" $?
done

done_testing
