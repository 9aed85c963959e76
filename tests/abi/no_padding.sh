#!/bin/sh
# weft.h alone compiles with -Wpadded -Werror, as C11 and as C++11, with every compiler that is here, and
# each header compiles without the others.
#
# Padding at the end of a struct is where a later field would land, and an old caller's is garbage.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
{
    echo '#include <weft/weft.h>'           # clang lays a struct out, and warns, only where it is used
    sed -n 's/^typedef struct \(weft_[a-z0-9_]*\) {.*/char use_\1[sizeof(\1)];/p' include/weft/*.h
} > "$tmp/all.c"

tried=0 status=0
try() { # try COMPILER STANDARD LANGUAGE
    command -v "$1" >/dev/null 2>&1 || { echo "no $1 here"; return 0; }
    echo 'int main(void) { return 0; }' > "$tmp/probe.c"
    "$1" -x "$3" -std="$2" -fsyntax-only "$tmp/probe.c" 2>/dev/null || { echo "$1 knows no $3 here"; return 0; }
    tried=$((tried + 1))
    for source in "$tmp/all.c" include/weft/*.h; do
        "$1" -x "$3" -std="$2" -fsyntax-only -Wall -Wextra -Wpedantic -Wpadded -Werror -Iinclude \
            "$source" || { echo "$1 -std=$2: $source"; status=1; }
    done
}
try gcc   c11   c
try gcc   c++11 c++
try clang c11   c
try clang c++11 c++
[ $tried -gt 0 ] || try "${CC:-cc}" c11 c
exit $status
