#!/bin/sh
# What weft trains, opened by diffusers and PEFT where they are installed: the same picture.
set -eu
B=${B:-build} PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import torch, diffusers, peft' 2>/dev/null || { echo "SKIP no Python with torch, diffusers and peft here"; exit 77; }
"$PYTHON" tests/reference/check_trained.py "$B/examples/weft"
