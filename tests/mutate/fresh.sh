#!/bin/sh
# Every mutant of tests/mutate still fits the source that it changes, and every test that it names
# is there.
set -u
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
status=0

awk -v out="$tmp" -f tests/mutate/mutants.awk tests/mutate/*.txt || status=1
for test in $(cut -f 4 "$tmp/list" | tr ' ' '\n' | sort -u); do
    [ -f "tests/$test.c" ] || { echo "mutants name tests/$test.c, which is not there"; status=1; }
done
exit $status
