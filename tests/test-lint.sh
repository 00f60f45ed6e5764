#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cppcheck finds nothing that tests/cppcheck.suppress does not explain. clang-tidy takes too long for every run:
# tests/lint.sh.
. "$(dirname "$0")/tap.sh"
if command -v cppcheck >/dev/null; then
  expect /lint/cppcheck "$FK_SOURCE/tests/lint.sh" --quick
else
  skip /lint/cppcheck "cppcheck is missing"
fi
done_testing
