#!/bin/sh
# Old programs run on new libraries, and new programs are answered by old ones, as docs/abi.md says.
#
# The next release is made here: every struct that can grow gets a field more at its end, and the
# library is compiled with that. growth.c is compiled against both headers and run with both.
set -eu
B=${B:-build} CC=${CC:-cc}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
case " ${CFLAGS:-} " in *-fsanitize*) echo "SKIP a sanitizer's library needs the sanitizer's program"; exit 77 ;; esac

mkdir -p "$tmp/include/weft"
for header in include/weft/*.h; do
    # The field goes before the last line of each typedef whose first field is struct_size.
    awk '/^typedef struct weft_[a-z0-9_]+ \{/ { grows = 0 }
         /uint32_t +struct_size;/             { grows = 1 }
         /^\} weft_[a-z0-9_]+;/ && grows      { print "    uint64_t grown;"; grows = 0 }
         { print }' "$header" > "$tmp/$header"
done
grown=$(cat "$tmp"/include/weft/*.h | grep -c 'uint64_t grown;')
rows=$("$B"/tests/abi/layout | grep -c '^first ')
[ "$grown" = "$rows" ] || { echo "$grown structs were given a field, $rows can grow"; exit 1; }

make -s --no-print-directory -j"$(nproc)" B="$tmp/new" INCLUDE="$tmp/include" CC="$CC" \
    CFLAGS='-O0 -Wno-missing-field-initializers' "$tmp/new/libweft.so" > "$tmp/log" 2>&1 || {
    echo "the library with grown structs does not build:"; cat "$tmp/log"; exit 1; }

compile() { # compile OUTPUT HEADERS FLAGS...
    out=$1 headers=$2; shift 2
    $CC -std=c11 -O1 -Wall -Wextra "$@" -I"$headers" tests/abi/growth.c -o "$out" -L"$B" -lweft
}
compile "$tmp/old_program" include
compile "$tmp/new_program" "$tmp/include" -DGROWN -Wno-missing-field-initializers

status=0
run() { # run OUTPUT LIBRARY PROGRAM WORDS...
    out=$1 lib=$2 program=$3; shift 3
    LD_LIBRARY_PATH=$lib "$program" examples/model "$@" > "$tmp/$out" || {
        echo "$out:"; cat "$tmp/$out"; status=1; }
}
run old_old "$B" "$tmp/old_program"
run old_new "$tmp/new" "$tmp/old_program"
run new_old "$B" "$tmp/new_program"
run new_new "$tmp/new" "$tmp/new_program"
run refused "$B" "$tmp/new_program" set
for pair in new_old; do
    cmp "$tmp/old_old" "$tmp/$pair" || { echo "$pair prints something else than old_old"; status=1; }
done
# Compiled with other flags, a library may differ in the last place: both programs agree on it.
cmp "$tmp/old_new" "$tmp/new_new" || { echo "two programs disagree about the new library"; status=1; }
[ "$(head -n1 "$tmp/old_old")" = "$(head -n1 "$tmp/old_new")" ] || { echo "facts differ"; status=1; }
refusals=$(grep -c 'WEFT_E_UNSUPPORTED.*is set, but this library' "$tmp/refused" || true)
[ "$refusals" = 9 ] || { echo "$refusals refusals of a field that is set, wanted 9"; cat "$tmp/refused"; status=1; }
exit $status
