#!/bin/sh
# The manual page and the tool's own help name the same options.
set -u
. tests/examples/expect

for sub in generate explain inspect convert merge conflicts fuse; do "$weft" $sub --help; done | grep -oE -- '--[a-z0-9-]+' | sort -u >"$tmp/help"
sed 's/\\-/-/g' docs/weft.1 | grep -oE -- '--[a-z0-9-]+' | sort -u | grep -vxE -- '--(name|version)' >"$tmp/manual"
that "the same options" diff "$tmp/help" "$tmp/manual"
[ $failures = 0 ] || cat "$tmp/out"
total
