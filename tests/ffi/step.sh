#!/bin/sh
# Run step.py and train.py where there is a Python to run them.
set -eu
B=${B:-build} PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import ctypes' 2>/dev/null || { echo "SKIP no python3 with ctypes here"; exit 77; }
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
"$B"/tests/abi/layout > "$tmp/layout"
"$PYTHON" tests/ffi/step.py "$B/libweft.so" "$tmp/layout"
"$PYTHON" tests/ffi/train.py "$B/libweft.so" "$tmp/layout" "$tmp"
