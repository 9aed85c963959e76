#!/bin/sh
# train-demo.sh - the adapters of the bundled model, made again by weft's own trainer, beside those that PEFT made.
#
#   sh examples/gallery/train-demo.sh [BUILD [OUT [NAME...]]]
#
# NAME is monster, rocket, hatching, mosaic or teal. The pictures are those of examples/data, the layers, ranks and rates
# those of tests/reference/bundled/train_lora.py and train_word.py, which made the bundled ones. Subjects see base pictures
# beside their own, so that shapes stay shapes. What comes out: OUT/NAME.safetensors, the curve of its loss, and
# OUT/train-demo.png: for each name two prompts, by the bundled adapter (PEFT) and by the one that was made here (weft).
set -eu

B=${1:-build} OUT=${2:-build/train-demo}
[ $# -lt 2 ] || shift 2
names=${*:-monster rocket hatching mosaic teal}
weft=$B/examples/weft model=examples/model data=examples/data
die() { echo "train-demo: $*" >&2; exit 1; }
[ -x "$weft" ] || die "there is no $weft: make it first"
[ -d $data ] || die "run it where $data is"
mkdir -p "$OUT"

# In most of it all are alike: the bundled model is small and wants high rates.
learn() {
    recipe=$1; shift
    began=$(date +%s)
    "$weft" train $recipe -m $model -d $data/$name -o "$OUT/$name.safetensors" --rates cosine --warmup 40 --beta2 0.99 \
        --dropout 0.1 -t "${THREADS:-2}" "$@"
    echo "$name: $(($(date +%s) - began)) s in all"
}
pair() { learn lora --rank 8 --feed --weight-decay 1e-3 "$@"; }
subject() { pair --conv --alpha 8 --rate 2.5e-3 --class-data $data/shapes -b 8 --prior-weight 0.4 "$@"; }

draw() { # LABEL PROMPT SEED ARGUMENT...
    label=$1 prompt=$2 seed=$3; shift 3
    count=$((count + 1))
    "$weft" generate $model -q --no-parameters -p "$prompt" --seed $seed -g 5 "$@" -o "$OUT/picture-$count.png"
    set -- "$OUT/picture-$count.png" "$label"
    sheet="$sheet $1 $(echo "$label" | tr ' ' '_')"
}
compare() { # OPTION BUNDLED PROMPT PROMPT
    option=$1 bundled=$2; shift 2
    for prompt do
        draw "$name, PEFT" "$prompt" 3 $option $bundled
        draw "$name, weft" "$prompt" 3 $option "$OUT/$name.safetensors"
    done
}

count=0 sheet=
for name in $names; do
    [ -d $data/$name ] || die "there is no $data/$name"
    case $name in
    monster) subject --text --seed 41 --steps 440
             compare -a $model/adapters/monster.safetensors "a large zib monster on a blue background" \
                 "a zib monster on a white background" ;;
    rocket) subject --seed 42 --steps 440
            compare -a $model/adapters/rocket "a large vok rocket on a red background" "a vok rocket on a white background" ;;
    hatching) pair --alpha 4 --rate 3.5e-3 --seed 43 -b 16 --steps 450
              compare -a $model/adapters/hatching.safetensors "a large red circle on a white background, hatched style" \
                  "a blue star, hatched style" ;;
    # A coarse style is decided early: --min-snr lets the noisiest steps count most, as they did for the bundled one.
    mosaic) pair --alpha 8 --rate 3.5e-3 --seed 44 -b 16 --steps 650 --min-snr 0.05
            compare -a $model/adapters/mosaic.safetensors "a large red circle on a white background, mosaic style" \
                "a blue star, mosaic style" ;;
    teal) learn textual-inversion --tokens '<teal>' --initial blue --token-rate 2e-2 --weight-decay 0 -b 16 --seed 51 --steps 200
          compare -c $model/words/teal.safetensors "a large <teal> circle on a white background" "a <teal> star on a yellow background" ;;
    *) die "there is no $name among monster, rocket, hatching, mosaic and teal" ;;
    esac
done
set --
for word in $sheet; do set -- "$@" "$(echo "$word" | sed '/\//!s/_/ /g')"; done
"$B/examples/sheet" "$OUT/train-demo.png" 3 4 "$@"
rm -f "$OUT"/picture-*.png
echo "$OUT/train-demo.png"

# What the judge of the drawn world says of both, where there is a Python with torch.
if "${PYTHON:-python3}" -c 'import torch, safetensors, PIL' 2>/dev/null; then
    "${PYTHON:-python3}" tests/bench/quality/demo.py "$B" "$OUT" $names
fi
