#!/bin/sh
# Goes on from a finished (or not quite finished) base model: trains it further, polishes the
# VAE's decoder, trains the adapters anew, and writes everything out.
#
#   finish.sh WORKDIR MODEL [minutes of base [minutes of decoder [minutes per adapter]]]
#
# PYTHON names the interpreter.  Two jobs of one thread at a time.
set -e
W=$1 MODEL=$2 BASE=${3:-30} DECODER=${4:-5} EACH=${5:-4}
PYTHON=${PYTHON:-python3}
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 THREADS=1

if [ "$BASE" != 0 ]; then
    rm -rf "$W/meet" "$W/from"
    cp -r "$W/snap" "$W/from"
    RANK=0 WORKERS=2 nice -n 5 "$PYTHON" train_base.py "$W" train "$BASE" "$W/from" >"$W/finish0.log" 2>&1 &
    a=$!
    RANK=1 WORKERS=2 nice -n 5 "$PYTHON" train_base.py "$W" train "$BASE" "$W/from" >"$W/finish1.log" 2>&1
    wait $a
fi
if [ "$DECODER" != 0 ]; then
    OMP_NUM_THREADS=2 nice -n 5 "$PYTHON" train_vae.py "$W" "$DECODER" decoder >"$W/decoder.log" 2>&1
fi
rm -rf "$W/model"
"$PYTHON" export.py "$W" "$W/model" >"$W/export.log" 2>&1
rm -rf "$W/adapters"
for pair in "monster hatching" "rocket mosaic"; do
    set -- $pair
    nice -n 5 "$PYTHON" train_lora.py "$W" "$1" "$EACH" >"$W/lora-$1.log" 2>&1 &
    a=$!
    nice -n 5 "$PYTHON" train_lora.py "$W" "$2" "$EACH" >"$W/lora-$2.log" 2>&1
    wait $a
done
"$PYTHON" export.py "$W" "$MODEL" >"$W/export.log" 2>&1
for what in base adapters compose; do
    "$PYTHON" show.py "$MODEL" "$W/show-$what.png" $what >"$W/show.log" 2>&1
done
echo finished
