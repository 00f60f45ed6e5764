#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clang-tidy (checks: .clang-tidy) and cppcheck over core/, gst/ and the tools. What each may say is in
# tests/clang-tidy.suppress and tests/cppcheck.suppress. Anything that they say is a failure; the last line counts it.
#   usage: [BUILD=build/plain] tests/lint.sh [--quick]      --quick: cppcheck alone (a minute)
#   needs clang-tidy 14 and cppcheck 2.10, Debian's
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build/plain}
report=$(mktemp)
trap 'rm -f "$report"' EXIT

# Macros that its own configuration of GLib does not know. C alone: sentencepiece-shim.cc is a page.
cppcheck --quiet -j "$(nproc)" --enable=warning --std=c11 --language=c --file-filter='*.c' --library=gtk --library=posix \
  '-DGST_ELEMENT_REGISTER_DECLARE(x)=' '-DGST_ELEMENT_REGISTER_DEFINE(a,b,c,d)=' '-DG_GNUC_PRINTF(a,b)=' \
  --suppressions-list=tests/cppcheck.suppress --suppress=missingIncludeSystem --template='{file}:{line}: {message} [{id}]' \
  -I core -I core/files -I core/model -I core/ops -I core/settings -I core/text -I gst -I examples core gst examples >>"$report" 2>&1
if [ "${1:-}" != --quick ]; then
  # A file at a time: of several its analyser of va_list takes what it knows of one for what it knows of the next.
  find core gst examples -name '*.c' | sort | xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$build" 2>/dev/null |
    sed -nE 's|^([^ ]*\.\./\.\./)?((core\|gst\|examples)/[^ ]*: (warning\|error): .*)|\2|p' | sort -u |
    awk 'NR == FNR { if (NF && $1 != "#") skip[$1, $2] = 1; next }
         { file = $0; sub(/:.*/, "", file); check = $0; sub(/.*\[/, "", check); sub(/[],].*/, "", check) }
         !((file, check) in skip)' tests/clang-tidy.suppress - >>"$report"
fi
cat "$report"
echo "$(grep -c . "$report" || true) findings"
[ ! -s "$report" ]
