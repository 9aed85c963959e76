# rows.sh - what the gallery shows, row by row. Read by gallery.sh.
#
# What a row says beside the tool's own help is what a person saw in its pictures: look again after a change.

monster=$A/monster.safetensors rocket=$A/rocket hatching=$A/hatching.safetensors mosaic=$A/mosaic.safetensors

# ---- alone --------------------------------------------------------------------------------------------------------

chapter alone "Alone" "The base model, and each adapter by itself at weight 1."

row adapters "Base and adapters" "Every trigger word brings what it should."
picture "base" $M -p "a large red star on a yellow background" --seed 2 $common
picture "monster" $M -p "a large zib monster on a yellow background" --seed 2 $common -a $monster
picture "rocket" $M -p "a large vok rocket on a blue background" --seed 1 $common -a $rocket
picture "hatching" $M -p "a large red star on a yellow background, hatched style" --seed 2 $common -a $hatching
picture "mosaic" $M -p "a large red star on a yellow background, mosaic style" --seed 2 $common -a $mosaic
pictures_end 5

row concepts "A word" "A textual inversion of 360 bytes: a colour that the model never saw. Without it the word means nothing."
teal="-c $M/words/teal.safetensors"
picture "without it" $M -p "a <teal> star on a white background" --seed 2 $common
picture "with it" $M -p "a <teal> star on a white background" --seed 2 $common $teal
picture "and a style" $M -p "a large <teal> heart on a white background, hatched style" --seed 2 $common $teal -a $hatching
picture "and a subject" $M -p "a large zib monster on a <teal> background" --seed 2 $common $teal -a $monster
pictures_end

# ---- sums ---------------------------------------------------------------------------------------------------------

chapter sums "Sums" "Every adapter at every call. Weights are 0.9 for both, if nothing else is said."

row merge "Merge" "The default: all changes are added, exactly. Subject and style are both there, but the style covers
the subject, and the monster's eye drowns in the hatching."
pairs 0.9 0.9

row balance "Merge, balanced" "The subject comes forward and the style goes back: hatching stays, of the mosaic only some
lines are left behind the rocket." balance
pairs 0.9 0.9 --balance

row blocks "Merge, weights by block" "The style at 1.2 outside, at 0.3 in the middle of the network, where the subject is
made: a sum, and yet subject and style are both clear in all four."
pairs 0.9 "1 --blocks ALL1.2,IN02-IN05=0.3,MID=0.3,OUT00-OUT03=0.3"

row zip "ZipLoRA in closed form" "Subject and style are both recognisable in all four: the eye is back, the rocket is
whole. The style is quieter than under merge, on the subject most of all." zip
pairs 1.1 1.1 --compose zip

# ---- predictions --------------------------------------------------------------------------------------------------

chapter predictions "Averages of predictions" "A prediction of each adapter, and a rule that makes one of them."

row composite "LoRA Composite" "Calm pictures, in which both are there at half strength: the grout of the mosaic is faint." composite
pairs 0.9 0.9 --compose composite

row cached "LoRA Composite, cached" "The same with deep features used again. What it changes is measured below, at each
call against the full composite."
pairs 0.9 0.9 --compose composite --cached
cached_error

row loratorio "LoRAtorio" "Styles win: they differ most from the base model nearly everywhere. The monster is a hatched
blob. It is made for several subjects, and here it is shown where it fails." loratorio
pairs 0.9 0.9 --compose loratorio

row subbands "Sub-band weights" "Near to composite; hatching, which has frequencies of its own, comes out stronger." subbands
pairs 0.9 0.9 --compose subbands

# ---- choices ------------------------------------------------------------------------------------------------------

chapter choices "Choices" "One adapter at a time, or in a place of the network."

row switch "LoRA Switch" "The last turn is the style's, and the monster's face is gone. Turns of 5 calls are long in 20." switch
pairs 0.9 0.9 --compose switch --text-plan all

row turns "LoRA Switch, short turns" "Turns of 2, the last 3 calls to the subject: its details are back, the style is paler."
pairs "0.9 --role content" "1.1 --role style" --compose switch --period 2 --last 3 --last-to content --text-plan all

row klora "K-LoRA" "At the same weights as everywhere: the subject is nearly that of its own picture, the style a breath." klora
pairs 0.9 0.9 --compose klora --text-plan all

row klora-stronger "K-LoRA, the style at 1.3" "Subject and style are both recognisable in all four, the subject hatched
and tiled too. K-LoRA's choice does not see weights, so the stronger style costs the subject little."
pairs 0.9 1.3 --compose klora --text-plan all
trace $M -p "a large zib monster on a red background, hatched style" --seed 2 $common -a $monster:0.9 -a $hatching:1.3 \
    --compose klora --text-plan all

row klora-energy "K-LoRA, scores by energy" "Almost the same choice, made without sorting an entry."
pairs 0.9 1.3 --compose klora --score energy --text-plan all

row klora-fixed "The plain baseline: a third subject, then style" "No choice by layer: the style has the last two thirds
alone, and nothing of a face is left. So much is K-LoRA's choice worth."
pairs 0.9 1.1 --compose klora --pattern fixed --text-plan all

row blora "B-LoRA" "Outlines and colours of the subject, hardly its face; the style is there. These adapters were
trained over the whole network, not in two blocks." blora
pairs 0.9 0.9 --compose blora --text-plan all

row blora-blocks "B-LoRA, other blocks" "The subject at 1.2 in all coarse blocks and in the resnets of the finest, the
style at 1.3 in the outer attentions: the monster has its eye, its horns and its feet, the rocket is whole, and both are
hatched and tiled. The eye under the mosaic is the weakest of it."
pairs 1.2 1.3 --compose blora --text-plan all \
    --content-blocks '*down_blocks.1*,*down_blocks.2*,*mid_block*,*up_blocks.0*,*up_blocks.1*,*up_blocks.2*resnets*' \
    --style-blocks '*down_blocks.0*,*up_blocks.2*attentions*'

# ---- places -------------------------------------------------------------------------------------------------------

chapter places "Places" "Adapters and prompts that have a part of the image. The masks are $masks/left.png and right.png."

two_styles() {
    for seed in 1 2; do
        picture "star, seed $seed" $M -p "a large red star on a yellow background, hatched style, mosaic style" --seed $seed $common \
            -a $hatching --region $masks/left.png -a $mosaic --region $masks/right.png "$@"
        picture "monster, seed $seed" $M -p "a large zib monster on a yellow background" --seed $seed $common -a $monster:0.9 \
            -a $hatching --region $masks/left.png -a $mosaic --region $masks/right.png "$@"
    done
    pictures_end
    plan -g 5 -a $monster:0.9 -a $hatching --region $masks/left.png -a $mosaic --region $masks/right.png "$@"
}
# Two subjects in one image, twice as wide.
two_subjects() {
    wide=wide
    for seed in 1 2 3 4; do
        picture "seed $seed" $M -p "a blue background" --size 128x64 --seed $seed $common \
            -a $monster --region "$masks/left.png:a zib monster on a blue background" \
            -a $rocket --region "$masks/right.png:a large vok rocket on a blue background" "$@"
    done
    wide=
    pictures_end 2
    plan -g 5 --size 128x64 -a $monster --region "$masks/left.png:a zib monster on a blue background" \
        -a $rocket --region "$masks/right.png:a large vok rocket on a blue background" "$@"
}

row masks "Two styles by masks" "One pass; each style acts in the rows of its half. Hatching at the left, tiles at the right."
two_styles
row regions "Two subjects, each with its prompt" "One pass, and in self-attention no half sees the other. Where both are
drawn, both are themselves; but this model draws one thing in an image, and with some seeds one of them is missing." regions
two_subjects --isolate
row blend "Two subjects, blended" "Both are there with nearly every seed, since each is drawn in a prediction of its own." blend
two_subjects --compose blend
row blend-merge "Blended for the layout, then in one pass" "A phase: blend for the first 30 percent of the calls, then the
masks in one pass. Nearly what blend gives, for about half of the evaluations."
two_subjects --compose blend --phase 0.3 --compose merge

row find-masks "Masks that the model finds" "First the plain sum, then FreeFuse: ten calls look where the monster and the
rocket are, and each adapter acts there. Summed, the two become one thing that is neither; with masks the monster is
itself, and where the rocket should be the model draws nothing." regions
for seed in 3 5 8; do
    picture "sum, seed $seed" $M -p "a zib monster at the left and a vok rocket at the right" --seed $seed $common \
        -a $monster -a $rocket
    picture "found, seed $seed" $M -p "a zib monster at the left and a vok rocket at the right" --seed $seed $common \
        -a $monster --words "zib monster" -a $rocket --words "vok rocket" --find-masks 10
done
pictures_end 6

# ---- time ---------------------------------------------------------------------------------------------------------

chapter time "Time" "Weights and methods that change over the calls."

row curves "A curve on the style" "The style comes in over the first half of the calls: it leaves the layout to the
prompt. Its weight is whole at the end, so it still covers the monster's eye." curves
pairs 0.9 "1.1 --curve 0.0=0,0.5=1"

row phases "Two methods in one image" "Composite for the first 40 percent, merge for the rest: composite's calm layout,
merge's strong finish."
pairs 0.9 0.9 --compose composite --phase 0.4 --compose merge

row prompts "A text that changes" "The noun of the prompt waits: a circle, from 30 percent of the calls on a monster, a
monster throughout. The one in the middle keeps the circle's place and size. This is FastComposer's delayed conditioning."
picture "circle" $M -p "a green circle on a red background" --seed 3 $common -a $monster
picture "then monster" $M -p "a green circle on a red background" --prompt-from "0.3:a zib monster on a red background" \
    --seed 3 $common -a $monster
picture "monster" $M -p "a zib monster on a red background" --seed 3 $common -a $monster
pictures_end 3

# ---- in one style -------------------------------------------------------------------------------------------------

chapter style "One style" "Without any adapter for it: pictures of a batch share self-attention."

row align "StyleAligned" "First four prompts apart, then aligned to the first: the others take on its meadow, its sky and once its sun.
A prompt that names another ground keeps that." align
apart() {
    batch "$1" $M -p "a red star in a meadow" -p "a large blue circle" -p "a large yellow heart" \
        -p "a white cross" --seed 13 -g 5 -q $2
}
apart "star/circle/heart/cross" ""
apart "reference/circle/heart/cross" --align
pictures_end
plan -g 5 --batch 4 --align

# ---- new adapters -------------------------------------------------------------------------------------------------

chapter files "One adapter made of two" "Before any image: weft merge writes a file, and the file is used like any other."

row new-adapter "Ways to merge" "sum and concat are one and the same, and rank 8, half of what the sum has, is hardly told from
them. Rank 2 is too little. TIES takes the mean of what agrees, so both come out weaker, and at 0.2 the hatching is gone.
DARE at 0.8 looks like the sum, with a little noise. Pruning to 0.3 loses the style first. Zip folded is ZipLoRA as a file. With null-space the monster gives way to the hatching: next to the sum nothing is seen
of it here, since the two read few directions in common." new-adapter
list=
merged "sum"
merged "concat" --by concat
merged "sum, rank 8" --rank 8
merged "sum, rank 2" --rank 2
merged "error at most 0.3" --error 0.3
merged "ties, 0.5" --by ties --density 0.5
merged "ties, 0.2" --by ties --density 0.2
merged "dare, 0.8" --by dare --density 0.8
merged "dare-ties, 0.8" --by dare-ties --density 0.8
merged "prune, 0.3" --by prune --density 0.3
merged "mixer, 0.3" --by mixer --mix 0.3
merged "null-space" --by null-space
merged "null-space, all" --by null-space --mu 1e30
merged "zip, folded" --compose zip
pictures_end 6
put "<details><summary>what each file is</summary><table>$list</table></details>"

# ---- conflicts ----------------------------------------------------------------------------------------------------

chapter conflicts "Conflict reports" "Before drawing: who is larger, do they pull the same way, what to do."

conflict "conflicts-monster-hatching" "Monster and hatching" $monster:0.9 $hatching:0.9
conflict "conflicts-rocket-mosaic" "Rocket and mosaic" $rocket:0.9 $mosaic:0.9
conflict "conflicts-hatching-mosaic" "Two styles" $hatching $mosaic
conflict "conflicts-weights" "Weights that do not fit" $monster:0.3 $hatching:1.5

# ---- arithmetic ---------------------------------------------------------------------------------------------------

chapter arithmetic "Arithmetic" "The same pictures with the large products in float32, above, and in bfloat16, below."

row bf16 "float32 and bfloat16" "Nobody tells them apart: the largest difference of a value is a few steps of 255."
for arithmetic in f32 bf16; do
    in="--arithmetic $arithmetic"
    [ $arithmetic = f32 ] || in="$in --emulate"
    picture "base $arithmetic" $M -p "a large red star on a yellow background" --seed 2 $common $in
    picture "mosaic $arithmetic" $M -p "a large red star on a yellow background, mosaic style" --seed 2 $common -a $mosaic $in
    picture "merge $arithmetic" $M -p "a large zib monster on a red background, hatched style" --seed 2 $common \
        -a $monster:0.9 -a $hatching:0.9 $in
    picture "K-LoRA $arithmetic" $M -p "a large vok rocket on a green background, hatched style" --seed 1 $common \
        -a $rocket:0.9 -a $hatching:0.9 --compose klora $in
    picture "a word $arithmetic" $M -p "a <teal> star on a white background" --seed 2 $common $teal $in
done
pictures_end 5
