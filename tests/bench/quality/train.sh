#!/bin/sh
# train.sh - the adapters that weft's own trainer makes for the comparison (methods.py).
#
#   tests/bench/quality/train.sh [BUILD [PATTERN]]
#
# Writes BUILD/quality/trained/NAME-THING.safetensors; what is there is kept. PATTERN is a shell pattern of those wanted,
# as 'dora-*'. PYTHON draws the pictures. A subject is learnt from 16 pictures, a style from 64, with pictures of the base
# world beside them where a recipe changes the network.
set -eu

build=${1:-build} only=${2:-*} here=$(dirname "$0")
weft=$build/examples/weft out=$build/quality/trained data=$build/quality/data model=examples/model
mkdir -p "$out"
[ -d "$data/class" ] || ${PYTHON:-python3} "$here/data.py" "$data"

# learn NAME FOLDER RECIPE OPTIONS...
learn() {
    name=$1 folder=$2 recipe=$3
    shift 3
    # shellcheck disable=SC2254
    case $name in $only) ;; *) return 0;; esac
    [ ! -e "$out/$name.safetensors" ] || return 0
    echo "train.sh: $name"
    nice -n 5 "$weft" train "$recipe" -m $model -d "$data/$folder" -o "$out/$name.safetensors" -q --threads 1 --seed 1 "$@" ||
        { echo "train.sh: $name was not made" >&2; failed=1; }
}

failed=0
text_of() { [ "$1" != monster ] || echo --text; }        # as the bundled adapters: the monster's has a text part
pairs="--rank 8 --feed --rates cosine --warmup 40 --beta2 0.99 --dropout 0.1"
prior="--class-data $data/class --batch 4"

for s in monster rocket; do
    for f in lora dora moslora; do
        learn $f-$s $s $f $pairs $prior --conv $(text_of $s) --rate 2.5e-3 --steps 250
    done
    learn loha-$s $s loha $pairs $prior --conv $(text_of $s) --rate 2.5e-3 --steps 250
    learn lokr-$s $s lokr $pairs $prior --conv $(text_of $s) --rate 2.5e-3 --steps 250
    learn dreambooth-$s $s dreambooth $prior --rate 1e-4 --rates cosine --warmup 40 --steps 250
    word=zib
    [ $s = monster ] || word=vok
    learn ti-$s $s-word textual-inversion --tokens "<$word>" --initial circle --vectors 4 --batch 4 --token-rate 1e-2 \
        --rates cosine --warmup 20 --steps 300
    learn custom-$s $s-modifier custom-diffusion --tokens "<$word>" --initial circle $prior --rate 1e-3 --token-rate 5e-3 \
        --rates cosine --warmup 20 --steps 250
    learn ed-$s $s-pair ed-lora --tokens "<${word}1>,<${word}2>" --initial circle,circle --rank 8 --batch 4 --rate 1e-3 \
        --text-rate 1e-4 --token-rate 1e-2 --steps 250
    learn blora-$s $s-one blora --rank 16 --batch 4 --rate 1e-3 --steps 200
done
for y in hatching mosaic; do
    learn lora-$y $y lora $pairs --batch 8 --rate 2.5e-3 --steps 250
    word=hat
    [ $y = hatching ] || word=mos
    learn custom-$y $y-modifier custom-diffusion --tokens "<$word>" --initial style $prior --rate 1e-3 --token-rate 5e-3 \
        --rates cosine --warmup 20 --steps 250
    learn blora-$y $y-one blora --rank 16 --batch 4 --rate 1e-3 --steps 200
done
adapters=$model/adapters
for s in monster rocket; do
    file=$adapters/$s.safetensors
    [ -e "$file" ] || file=$adapters/$s
    for y in hatching mosaic; do
        learn zip-$s-$y $s ziplora --content "$file" --style "$adapters/$y.safetensors" --style-data "$data/$y" \
            --batch 2 --rate 0.01 --steps 100
    done
done
exit $failed
