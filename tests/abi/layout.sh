#!/bin/sh
# Offsets, constants and first sizes are those stored at the last release: each stored line is still
# true. A struct may have grown at its end, and nowhere else. layout.c prints every struct, field and
# constant of the headers, so that none escapes; lib/base/structs.h names every struct that can grow.
set -eu
B=${B:-build} CC=${CC:-cc}
here=tests/abi
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
status=0

${EMULATOR:-} "$B"/tests/abi/layout | sort > "$tmp/now"

# Names in the headers: "struct weft_x", "weft_x.field", "WEFT_CONSTANT".
$CC -E -P -DWEFT_FFI -Iinclude include/weft/weft.h | tr '\n' ' ' | sed 's/[{};,]/&\n/g' | awk '
    /typedef struct weft_[a-z0-9_]+ \{/ { inside = $(NF - 1); print "sizeof " inside; next }
    /enum [a-z0-9_]+ \{/               { constants = 1; next }
    /enum \{/                           { print "untagged enum" }
    constants && match($0, /WEFT_[A-Z0-9_]+/) { print substr($0, RSTART, RLENGTH) }
    /\}/                                { inside = ""; constants = 0 }
    inside != ""                        { field = field $0 }
    inside != "" && /;/ {
        if (match(field, /\(\*[a-z0-9_]+\)/)) name = substr(field, RSTART + 2, RLENGTH - 3)
        else { sub(/(\[[0-9]+\])? *;.*/, "", field); sub(/.*[ *]/, "", field); name = field }
        print inside "." name
        field = ""
    }' | sort -u > "$tmp/headers"
sed -e '/^first/d' -e 's/ at .*//' -e '/^sizeof/s/ [0-9]*$//' -e '/^WEFT/s/ .*//' "$tmp/now" | sort -u > "$tmp/printed"
if ! diff "$tmp/headers" "$tmp/printed" > "$tmp/diff"; then
    echo "the headers (<) and $here/layout.c (>) differ:"
    grep '^[<>]' "$tmp/diff"
    status=1
fi

# Every struct that begins with struct_size has its row in lib/base/structs.h.
sed -n 's/^\(weft_[a-z0-9_]*\)\.struct_size .*/\1/p' "$tmp/now" | sort > "$tmp/growing"
sed -n 's/^first \(weft_[a-z0-9_]*\) .*/\1/p' "$tmp/now" | sort > "$tmp/rows"
if ! diff "$tmp/growing" "$tmp/rows" > "$tmp/diff"; then
    echo "structs with struct_size (<) and the rows of lib/base/structs.h (>) differ:"
    grep '^[<>]' "$tmp/diff"
    status=1
fi

machine=$($CC -dumpmachine | sed 's/-.*//')
stored=$here/layout.$machine.txt
if [ ! -f "$stored" ]; then
    echo "SKIP no stored layout for $machine"
    exit $status
fi
# A stored "sizeof X N" holds while X has at least N bytes, and N exactly where X cannot grow.
changed=$(sort "$stored" | comm -23 - "$tmp/now" | while read -r line; do
    set -- $line
    if [ "$1" = sizeof ] && grep -qx "$2" "$tmp/growing"; then
        now=$(sed -n "s/^sizeof $2 //p" "$tmp/now")
        [ "${now:-0}" -ge "$3" ] && continue
    fi
    echo "$line"
done)
[ -z "$changed" ] || { echo "lines of $stored that no longer hold:"; echo "$changed"; status=1; }
exit $status
