#!/bin/sh
# Run step.py where there is a Python to run it.
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import ctypes' 2>/dev/null || { echo "SKIP no python3 with ctypes here"; exit 77; }
exec "$PYTHON" tests/ffi/step.py "${B:-build}/libweft.so"
