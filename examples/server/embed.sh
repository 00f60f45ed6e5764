#!/bin/sh
# A file as a C array of bytes with a 0 behind it.
#   usage: embed.sh FILE NAME >out.c
set -eu
echo "#include \"resources.h\""
echo "const char $2[] = {"
od -An -v -tx1 "$1" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'
echo "0};"
