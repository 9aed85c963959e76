#!/bin/sh
# What the tool says of compositions that cannot be: for each kind of mistake one line that says what was found and
# what is wanted, and nothing is written.
set -u
. tests/examples/expect

a=$model/adapters/monster.safetensors
b=$model/adapters/mosaic.safetensors
wide=tests/data/fixtures/wide.png gray=tests/data/fixtures/gray.png
draw="$weft generate $model -q -p x -o $tmp/out.png"
pair="$weft explain $model -a $a -a $b"
make="$weft merge $model -q --into adapter -o $tmp/out.safetensors"

# no LINE PATTERN COMMAND...: refused with this status and line, and no file is there afterwards.
no() {
    refuses "$@"
    that "nothing is written" test ! -e "$tmp/out.png" -a ! -e "$tmp/out.safetensors"
}

# ---- a mask of a size that no mask has
no 1 "^weft: --region $wide: a mask of 4097 x 1, wanted sides of 1 to 4096$" $draw -a $a --region $wide
no 1 "^weft: --region $wide: a mask of 4097 x 1, wanted sides of 1 to 4096$" $draw --region $wide:y
no 2 "^weft: --region-text: 1.5 is not between 0 and 1" $draw -a $a --region $gray --region-text 1.5

# ---- a curve that goes backwards, or leaves its range
no 1 "^weft: --curve of $a: point 1 of a curve is at 2, before the one at 3: a curve goes forwards$" $draw -a $a --curve 3=1,2=2
no 1 "^weft: --curve of $b: point 1 of a curve is at 1.5, wanted 0 to 1$" $draw -a $a -a $b --curve 0.0=1,1.5=2

# ---- block weights of a wrong length, or of blocks that are not there
no 1 "^weft: --blocks of $a: block weights: 3 numbers; this model takes 14 (all blocks) or 8 (BASE and those with attention)$" \
    $draw -a $a --blocks 1,0,1
no 1 "--blocks of $a: .*IN77" $draw -a $a --blocks IN77=1
no 1 "--blocks of $a: .*nothing\* is no block of this model, and fits none of its layers$" $draw -a $a --blocks 'nothing*=1'

# ---- a region without an adapter
no 2 "^weft: --region $gray: before it stands no --adapter that could act there, and it has no prompt: --region $gray:TEXT" \
    $draw --region $gray
no 1 "none of 1 adapters has a mask" $draw -a $a --compose blend

# ---- two methods for one call
refuses 2 "^weft: --compose switch: these calls have a method already; --phase begins others" $pair --compose klora --compose switch
refuses 2 "these calls have a method already" $pair --phase 3 --compose klora --compose klora
refuses 1 "^weft: --phase is 5, the phase before begins at call 5$" $pair --phase 5 --compose klora --phase 5 --compose switch
refuses 1 "phase 2 begins at call 4 of 20, before phase 1 at 10" $pair --phase 10 --compose klora --phase 0.2 --compose merge
prints '^  phase 1 .*Switch, calls 5 to 19' $pair --compose klora --phase 5 --compose switch

# ---- merges
no 1 "^weft: TIES compares adapters where they meet, and these share no layer: monster and mosaic$" \
    $make -a $a --select 'unet.up*' -a $b --select 'unet.down*' --by ties --density 0.5
no 2 "^weft: --density: 1.5 is not between 0 and 1" $make -a $a -a $b --by ties --density 1.5
no 2 "^weft: --density: -0.1 is not between 0 and 1" $make -a $a -a $b --by dare --density -0.1
no 1 "^weft: TIES keeps a density above 0, at most 1; it is 0$" $make -a $a -a $b --by ties --density 0
no 2 "^weft: --rank: 0 is not between 1 and 65536" $make -a $a -a $b --rank 0
no 2 "^weft: --rank: 2.5 is not a whole number" $make -a $a -a $b --rank 2.5

total
