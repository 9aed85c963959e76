#!/bin/sh
# Several pictures, pictures in one style, texts that change: their files, what is written into them, and what is
# refused. That they are what the library draws, test_batch.c sees to.
set -u
. tests/examples/expect

few="-q -s 3 -g 2"
draw() { "$weft" generate $model $few "$@"; }
plain() { draw --no-parameters "$@"; }
has() { tr '\0' '\n' <"$1" | grep -aFq -- "$2"; }
star="-p star"

# ---- one file for each picture, which is the picture of its prompt and seed

plain -p "a red star" --seed 4 -o "$tmp/one.png"
plain -p "a blue heart" --seed 5 -o "$tmp/two.png"
that "two prompts" plain -p "a red star" -p "a blue heart" --seed 4 -o "$tmp/both.png"
that "the first alone" cmp "$tmp/one.png" "$tmp/both-1.png"
that "the second alone" cmp "$tmp/two.png" "$tmp/both-2.png"
that "no other file" test ! -e "$tmp/both.png" -a ! -e "$tmp/both-3.png"
that "a batch" plain -p "a red star" --batch 2 --seed 3 -o "$tmp/no.ending"
that "numbers stand before the ending" cmp "$tmp/one.png" "$tmp/no-2.ending"
mkdir "$tmp/a.b"
that "a folder with a dot" plain -p "a red star" --batch 2 --seed 3 -o "$tmp/a.b/name"
that "is none of the name's" cmp "$tmp/one.png" "$tmp/a.b/name-2"
draw -p "a red star" -p "a blue heart" --prompt-from 0.5:"a ring" --negative-from 2:"a cross" --seed 4 -o "$tmp/said.png"
that "each has its prompt" has "$tmp/said-2.png" "a blue heart"
that "and seed" has "$tmp/said-2.png" "Seed: 5,"
that "and texts" has "$tmp/said-2.png" 'Prompt from 0.5: "a ring", Negative from 2: "a cross"'
that "which are not the other's" test "$(tr '\0' '\n' <"$tmp/said-1.png" | grep -ac 'Prompt from')" = 0
plain -p "a blue heart" --seed 5 --prompt-from 2:"a ring" -o "$tmp/late.png"
plain -p "a blue heart" --seed 5 --prompt-from 0.5:"a ring" -o "$tmp/share.png"
that "half of three calls is call 2" cmp "$tmp/late.png" "$tmp/share.png"
that "and another picture" test "$(cmp -s "$tmp/late.png" "$tmp/two.png"; echo $?)" = 1

# ---- image to image, each with its own noise

plain -p "a red star" -i "$tmp/two.png" --strength 0.7 --seed 4 -o "$tmp/from.png"
plain -p "a ring" -p "a red star" -i "$tmp/two.png" --strength 0.7 --seed 3 -o "$tmp/froms.png"
that "from an image" cmp "$tmp/from.png" "$tmp/froms-2.png"
plain -p "a red star" -i "$tmp/two.png" --mask "$tmp/one.png" --seed 4 -o "$tmp/masked.png"
plain -p "a ring" -p "a red star" -i "$tmp/two.png" --mask "$tmp/one.png" --seed 3 -o "$tmp/maskeds.png"
that "under a mask" cmp "$tmp/masked.png" "$tmp/maskeds-2.png"

# ---- aligned

plain -p "a red star" -p "a blue heart" --seed 4 --align -o "$tmp/aligned.png"
that "the first is as alone" cmp "$tmp/one.png" "$tmp/aligned-1.png"
that "the other is not" test "$(cmp -s "$tmp/two.png" "$tmp/aligned-2.png"; echo $?)" = 1
draw -p "a blue heart" --reference "$tmp/one.png:a red star" --shared-score-shift 0.7 --align-without keys -o "$tmp/ref.png"
that "one picture beside the reference has the plain name" test -s "$tmp/ref.png" -a ! -e "$tmp/ref-1.png"
that "and says whose style" has "$tmp/ref.png" "Aligned: to \"$tmp/one.png\" by inversion without keys shared_score_shift 0.7"
draw -p "a blue heart" -p "a ring" --align --shared-score-scale 0.5 --only-self-level 0.25 --adain-values -o "$tmp/p.png"
that "options are said" has "$tmp/p-2.png" "Aligned: to the first adain_values shared_score_scale 0.5 only_self_level 0.25"
prints 'aligned    samples of a batch take the first for reference; they see' "$weft" explain $model --align --batch 4

# ---- refused

refuses 2 'there are 2 --prompt' "$weft" generate $model $star -p x --batch 3
refuses 2 'needs two pictures' "$weft" generate $model $star --align
refuses 2 'adain-values is of --align' "$weft" generate $model $star -p x --adain-values
refuses 2 'shared-score-scale is of --align' "$weft" explain $model --shared-score-scale 2
refuses 2 'reference-by is of --reference' "$weft" generate $model $star -p x --align --reference-by noise
refuses 2 'names no file' "$weft" generate $model $star --reference :x
refuses 1 'nowhere.png' "$weft" generate $model $star --reference "$tmp/nowhere.png"
refuses 2 'not a list of group-norm' "$weft" generate $model $star -p x --align --align-without values
refuses 2 'not a list of group-norm' "$weft" generate $model $star -p x --align --align-without keys,
refuses 1 'under --full-attention-share there is no reference' "$weft" generate $model $star -p x --align --full-attention-share --adain-values
refuses 1 'with --align-without attention nothing is scored' "$weft" generate $model $star -p x --align --align-without attention --shared-score-shift 1
refuses 2 'not between 0 and 1' "$weft" generate $model $star -p x --align --only-self-level 2
refuses 2 'start of one picture' "$weft" generate $model $star -p x --latents "$tmp/any.safetensors"
refuses 2 'not for --mask' "$weft" generate $model $star --reference "$tmp/one.png" -i "$tmp/one.png" --mask "$tmp/one.png"
refuses 2 'stands in for them' "$weft" generate $model --conditioning "$tmp/any.safetensors" --batch 2
refuses 2 'for the --prompt before it' "$weft" generate $model --prompt-from 3:x $star
refuses 2 'not like 8:TEXT' "$weft" generate $model $star --prompt-from x:y
refuses 2 'not like 8:TEXT' "$weft" generate $model $star --prompt-from 5
refuses 2 'not between 0 and 1' "$weft" generate $model $star --prompt-from 1.5:x
refuses 2 'not a whole number\|not between' "$weft" generate $model $star --prompt-from 0:x
refuses 1 'after the last call, which is 2' "$weft" generate $model $few $star --prompt-from 3:x -o "$tmp/x.png"
refuses 1 'after the last call' "$weft" generate $model $few $star --prompt-from 1.0:x -o "$tmp/x.png"
refuses 1 'that is not after --prompt-from 2' "$weft" generate $model $few $star --prompt-from 2:x --prompt-from 0.3:y -o "$tmp/x.png"
refuses 2 'no effect without guidance' "$weft" generate $model $star -g 1 --negative-from 2:x
white="$tmp/one.png"
refuses 2 'needs one of its own' "$weft" generate $model $star -p x -a $model/adapters/monster.safetensors --region "$white" \
    -a $model/adapters/hatching.safetensors --region "$white" --isolate
refuses 1 'one or the other' "$weft" generate $model $star -p x -a $model/adapters/monster.safetensors --region "$white:y" \
    -a $model/adapters/hatching.safetensors --region "$white:z" --isolate --align --full-attention-share -o "$tmp/x.png"

total
