#!/bin/sh
# Give the header to cffi, where Python has that.
set -eu
B=${B:-build} PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import cffi' 2>/dev/null || { echo "SKIP no python3 with cffi here"; exit 77; }
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
"$B"/tests/abi/layout > "$tmp/layout"
${CC:-cc} -E -P -DWEFT_FFI -Iinclude include/weft/weft.h > "$tmp/declarations"
"$PYTHON" tests/ffi/declarations.py "$B/libweft.so" "$tmp/layout" < "$tmp/declarations"
