#!/bin/sh
# With -DWEFT_FFI the preprocessed header is bare declarations, ready for a parser of cdefs.
set -eu
text=$(${CC:-cc} -E -P -DWEFT_FFI -Iinclude include/weft/weft.h)
if echo "$text" | grep -nE '__|#|extern|static|inline|visibility|WEFT_API|uint_least'; then
    echo "the lines above are more than declarations"
    exit 1
fi
# Types that bindings disagree about (abi.md, section 3).
if echo "$text" | grep -nwE 'long|bool|_Bool|short|wchar_t|time_t|off_t|FILE|va_list|union'; then
    echo "the lines above use a type that not every language reads the same way"
    exit 1
fi
if echo "$text" | grep -nE '\.\.\.|:[ ]*[0-9]+;'; then
    echo "the lines above are variadic or have a bit field"
    exit 1
fi
