#!/bin/sh
# The headers in every standard of C and C++ that the compilers here know: no name in them is a
# keyword of any, they compile without a warning, and a C++ program links with the library and runs.
set -eu
B=${B:-build} CC=${CC:-cc}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
status=0

# ---- keywords of C11 to C23 and C++11 to C++23, without those that declarations are made of

cat > "$tmp/keywords" <<'END'
alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor bool
break case catch char8_t char16_t char32_t class co_await co_return co_yield compl concept
const_cast consteval constexpr constinit continue contract_assert decltype default delete do
dynamic_cast else explicit export extern false final for friend goto if import inline long module
mutable namespace new noexcept not not_eq nullptr operator or or_eq override private protected
public reflexpr register reinterpret_cast requires restrict return short signed sizeof static
static_assert static_cast switch synchronized template this thread_local throw true try typeid
typename typeof typeof_unqual union using virtual volatile wchar_t while xor xor_eq
END
tr ' ' '\n' < "$tmp/keywords" > "$tmp/words"
$CC -E -P -DWEFT_FFI -Iinclude include/weft/weft.h > "$tmp/declarations"
if grep -nwFf "$tmp/words" "$tmp/declarations"; then
    echo "the lines above have a keyword of C or C++ for a name"
    status=1
fi

# ---- every standard

echo '#include <weft/weft.h>' > "$tmp/header.c"
# inits.h: a line INIT(weft_x, WEFT_X_INIT) for each struct that has a macro.
sed -n 's/^#define \(WEFT_[A-Z0-9_]*\)_INIT\( .*\)*$/\1/p' include/weft/*.h | sort -u |
    while read -r name; do
        echo "INIT($(echo "$name" | tr 'A-Z' 'a-z'), ${name}_INIT)"
    done > "$tmp/inits.h"
model=${WEFT_MODEL:-examples/model}
case " ${CFLAGS:-} " in
*-fsanitize*) echo "SKIP a sanitizer's library needs the sanitizer's program"; exit 77 ;;
esac
tried=0 linked=0

# knows COMPILER LANGUAGE STANDARD
knows() {
    command -v "$1" >/dev/null 2>&1 && echo 'int main(void) { return 0; }' > "$tmp/probe.c" &&
        "$1" -x "$2" -std="$3" -fsyntax-only "$tmp/probe.c" 2>/dev/null
}
strict='-Wall -Wextra -Wpedantic -Werror'
for compiler in gcc clang; do
    for standard in c11 c17 c23 c2x; do
        knows $compiler c $standard || continue
        tried=$((tried + 1))
        $compiler -std=$standard -fsyntax-only $strict -Iinclude "$tmp/header.c" ||
            { echo "$compiler -std=$standard"; status=1; }
    done
done
for compiler in g++ clang++; do
    for standard in c++11 c++14 c++17 c++20 c++23 c++2b; do
        knows $compiler c++ $standard || continue
        tried=$((tried + 1))
        $compiler -x c++ -std=$standard -fsyntax-only $strict -Iinclude "$tmp/header.c" ||
            { echo "$compiler -std=$standard"; status=1; continue; }
        $compiler -std=$standard -O1 $strict -Iinclude -I"$tmp" tests/abi/languages.cpp \
            -o "$tmp/program" -L"$B" -lweft ||
            { echo "$compiler -std=$standard does not compile or link"; status=1; continue; }
        linked=$((linked + 1))
        [ ! -f "$model/model_index.json" ] || LD_LIBRARY_PATH=$B "$tmp/program" "$model" ||
            { echo "the program of $compiler -std=$standard fails"; status=1; }
    done
done
[ $tried -gt 0 ] || { echo "SKIP neither gcc nor clang is here"; [ $status != 0 ] || exit 77; }
[ $linked -gt 0 ] || echo "SKIP no C++ compiler is here"
exit $status
