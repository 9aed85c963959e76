#!/bin/sh
# A room of lib/ includes headers of the rooms that docs/architecture.md lists for it, and no others.
# "From room: header" below are the arrows that point up; the page names them and says why.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT

awk '/^### / { here = /arrows/ } here && /^    [a-z]/ { for (i = 2; i <= NF && $i !~ /^\(/; i++) print $1, $i }' \
    docs/architecture.md | sort > "$tmp/allowed"
[ -s "$tmp/allowed" ] || { echo "docs/architecture.md has no list of arrows"; exit 1; }

# Each include of another room: ROOM OTHER FILE HEADER.
find lib -name '*.[ch]' | sort | while read -r file; do
    room=${file#lib/}; room=${room%%/*}
    sed -n 's/^#include "\([a-z_]*\)\/\(.*\)"$/\1 \2/p' "$file" | while read -r other header; do
        [ "$other" = "$room" ] || [ "$other" = weft ] || echo "$room $other $file $other/$header"
    done
done > "$tmp/includes"

status=0
while read -r room other file header; do
    case "$file $header" in
    "lib/base/version.c sampler/solvers.h") continue ;;
    esac
    grep -qx "$room $other" "$tmp/allowed" && continue
    echo "$file includes $header, but no arrow of docs/architecture.md goes from $room to $other"
    status=1
done < "$tmp/includes"

# A header of one room's own is included nowhere else.
grep '_internal\.h$' "$tmp/includes" && { echo "internal headers of other rooms are included"; status=1; }
exit $status
