#!/bin/sh
# What libweft.so exports = what lib/weft.map lists = what the headers declare with WEFT_API.
#
# A name in the map alone would be a promise nobody can call; one in the headers alone fails at the
# caller's link; one exported by neither is a leak that somebody will come to depend on.
set -eu
B=${B:-build} CC=${CC:-cc}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT

# Declarations, one a line: the preprocessor drops comments, and a WEFT_API of our own marks the functions.
# $1: what WEFT_API stands for
declarations() {
    $CC -E -P -DWEFT_FFI "-DWEFT_API=$1" -Iinclude include/weft/weft.h | tr '\n' ' ' | tr ';' '\n'
}
function_names() { sed -n 's/^[^(]*[ *]\(weft_[a-z0-9_]*\)(.*/\1/p' | sort; }

declarations MARKED | grep MARKED | function_names > "$tmp/header"
declarations '' | grep -v typedef | function_names > "$tmp/declared"
sed -n 's/^ *\(weft_[a-z0-9_]*\);.*/\1/p' lib/weft.map | sort > "$tmp/map"
nm -D --defined-only "$B"/libweft.so > "$tmp/nm"
awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' "$tmp/nm" | sort > "$tmp/so"

status=0
same() { # same A B: two lists and what they are
    if ! diff "$tmp/$1" "$tmp/$2" > "$tmp/diff"; then
        echo "$3 (<) and $4 (>) differ:"
        grep '^[<>]' "$tmp/diff"
        status=1
    fi
}
same map so "lib/weft.map" "the exports of libweft.so"
same header map "the headers' WEFT_API functions" "lib/weft.map"
same declared header "all functions of the headers" "those marked WEFT_API"

grep -n '^ *weft[a-z0-9_]*\*' lib/weft.map && { echo "lib/weft.map has a wildcard"; status=1; }
[ -s "$tmp/map" ] || { echo "lib/weft.map lists nothing"; status=1; }
exit $status
