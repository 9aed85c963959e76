#!/bin/sh
# Sizes, offsets and constants are those stored at the last release: each stored line is still true. And
# layout.c prints every struct, field and constant of the headers, so that none escapes.
set -eu
B=${B:-build} CC=${CC:-cc}
here=tests/abi
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
status=0

"$B"/tests/abi/layout | sort > "$tmp/now"

# Names in the headers: "struct weft_x", "weft_x.field", "WEFT_CONSTANT".
$CC -E -P -DWEFT_FFI -Iinclude include/weft/weft.h | tr '\n' ' ' | sed 's/[{};,]/&\n/g' | awk '
    /typedef struct weft_[a-z0-9_]+ \{/ { inside = $(NF - 1); print "sizeof " inside; next }
    /enum \{/                           { constants = 1; next }
    constants && match($0, /WEFT_[A-Z0-9_]+/) { print substr($0, RSTART, RLENGTH) }
    /\}/                                { inside = ""; constants = 0 }
    inside != ""                        { field = field $0 }
    inside != "" && /;/ {
        if (match(field, /\(\*[a-z0-9_]+\)/)) name = substr(field, RSTART + 2, RLENGTH - 3)
        else { sub(/(\[[0-9]+\])? *;.*/, "", field); sub(/.*[ *]/, "", field); name = field }
        print inside "." name
        field = ""
    }' | sort -u > "$tmp/headers"
sed -e 's/ at .*//' -e '/^sizeof/s/ [0-9]*$//' -e '/^WEFT/s/ .*//' "$tmp/now" | sort -u > "$tmp/printed"
if ! diff "$tmp/headers" "$tmp/printed" > "$tmp/diff"; then
    echo "the headers (<) and $here/layout.c (>) differ:"
    grep '^[<>]' "$tmp/diff"
    status=1
fi

machine=$($CC -dumpmachine | sed 's/-.*//')
stored=$here/layout.$machine.txt
if [ ! -f "$stored" ]; then
    echo "SKIP no stored layout for $machine"
    exit $status
fi
changed=$(sort "$stored" | comm -23 - "$tmp/now")
[ -z "$changed" ] || { echo "lines of $stored that no longer hold:"; echo "$changed"; status=1; }
exit $status
