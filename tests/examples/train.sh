#!/bin/sh
# weft train on the bundled model: what it writes, that a break does not show in it, what a kill and a full disk leave, and
# what it refuses. What is learned, tests/train looks at.
set -u
. tests/examples/expect

job=
trap '[ -z "$job" ] || kill -KILL $job 2>/dev/null; rm -rf "$tmp"' EXIT

mkdir "$tmp/data" "$tmp/empty"
"$weft" generate $model -q -s 2 -p "a red circle" --batch 3 -o "$tmp/data/it.png" --no-parameters
echo "a red circle" >"$tmp/data/it-1.txt"
# What the program said is kept for a look at it.
learn() {
    recipe=$1; shift
    "$weft" train $recipe -m $model -d "$tmp/data" -p round -b 2 -s 4 "$@" >"$tmp/said" 2>"$tmp/heard"
    status=$?
    cat "$tmp/heard" >&2
    return $status
}
lora() { learn lora --rank 4 --checkpoint-every 0 "$@"; }
no() { ! "$@"; }
refused="$weft train lora -m $model -d $tmp/data -p round -b 2 -s 4 --rank 4 --checkpoint-every 0"
exists() { [ -s "$1" ]; }
is_png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ]; }

# ---- help

prints '^  lora ' "$weft" train --list
prints '^  dreambooth-lora ' "$weft" train --list
prints '^  ziplora ' "$weft" help train
prints '--checkpoint-every N' "$weft" help training
prints '--min-snr X' "$weft" help learning
prints '--factor N' "$weft" help recipe

# ---- what is written

that "four steps" lora -o "$tmp/whole.safetensors"
that "what it takes is said" grep -q '^memory: ' "$tmp/said"
that "with the rank" grep -q 'rank 4' "$tmp/said"
that "and the pictures" grep -q '^3 pictures at 64x64; 4 steps of 2' "$tmp/said"
that "an adapter for the model" "$weft" inspect "$tmp/whole.safetensors" --model $model
prints '^  trained   by weft .*: lora, 4 steps of 2, rate 0.0001, 64x64, seed 0' "$weft" inspect "$tmp/whole.safetensors"
that "its curve" is_png "$tmp/whole.loss.png"
that "its losses" test "$(wc -l <"$tmp/whole.loss.csv")" = 5
that "no checkpoint is left" test ! -e "$tmp/whole.checkpoint.safetensors"
that "in silence" lora -q --threads 1 -o "$tmp/one.safetensors"
that "nothing is said" test ! -s "$tmp/said" -a ! -s "$tmp/heard"
that "threads do not show" cmp "$tmp/whole.safetensors" "$tmp/one.safetensors"
that "recomputed" lora -q --recompute -o "$tmp/again.safetensors"
that "draws" "$weft" generate $model -q -s 2 -p "a red circle" -a "$tmp/whole.safetensors" -o "$tmp/drawn.png"
that "kohya's names" lora -q --dialect kohya --half -o "$tmp/kohya.safetensors" --curve "$tmp/elsewhere.png"
that "are in it" sh -c "grep -aq lora_unet_ '$tmp/kohya.safetensors'"
that "the curve where it was asked for" is_png "$tmp/elsewhere.png"
that "PEFT's folder" lora -q --dialect peft -o "$tmp/peft"
that "is one" exists "$tmp/peft/unet/adapter_config.json"

# ---- breaks

that "two steps" lora -o "$tmp/part.safetensors" --stop-after 2
that "how to go on is said" grep -q 'stopped at step 2 of 4; to go on: weft train lora .*--resume' "$tmp/heard"
checkpoint=$tmp/part.checkpoint.safetensors
that "a checkpoint" exists "$checkpoint"
that "and nothing else" test ! -e "$tmp/part.safetensors"
cp "$checkpoint" "$tmp/kept" && cp "$tmp/part.loss.csv" "$tmp/kept.csv"
refuses 1 'of a training that was stopped: go on with --resume' $refused -o "$tmp/part.safetensors"
refuses 1 'rank is "4"' $refused --resume --rank 8 -o "$tmp/part.safetensors"
refuses 1 'conv is "no"' $refused --resume --conv -o "$tmp/part.safetensors"
refuses 1 'rates is "1"' $refused --resume --rates cosine -o "$tmp/part.safetensors"
refuses 1 'steps is 1, and .* is of step 2 already' $refused --resume -s 1 -o "$tmp/part.safetensors"
refuses 1 'seed' $refused --resume --seed 3 -o "$tmp/part.safetensors"
that "which leaves it" cmp "$checkpoint" "$tmp/kept"
that "the other two" lora --resume -o "$tmp/part.safetensors"
that "from there" grep -q 'going on from step 2' "$tmp/said"
that "the same bytes" cmp "$tmp/whole.safetensors" "$tmp/part.safetensors"
that "and losses" cmp "$tmp/whole.loss.csv" "$tmp/part.loss.csv"
that "it is done with" test ! -e "$checkpoint"
refuses 1 'checkpoint' $refused --resume -o "$tmp/part.safetensors"
for bytes in 0 7 100 5000; do
    head -c $bytes "$tmp/kept" >"$checkpoint"
    refuses 1 'part.checkpoint.safetensors' $refused --resume -o "$tmp/part.safetensors"
done
rm -f "$checkpoint"

# A disk that is full when a checkpoint is due: a warning, and the last one is whole.
lora -q -o "$tmp/full.safetensors" --stop-after 2 2>/dev/null
(ulimit -f 8; lora -q --resume --checkpoint-every 1 -o "$tmp/full.safetensors") >"$tmp/spoken" 2>"$tmp/warned"
that "it failed" test $? = 1
that "in words" grep -q '^weft: warning: .*full.checkpoint.safetensors' "$tmp/warned"
that "the last checkpoint is whole" cmp "$tmp/full.checkpoint.safetensors" "$tmp/kept"
that "with nothing beside it" test "$(ls "$tmp" | grep -c '^full')" = 2
that "with more room it is gone on with" lora -q --resume -o "$tmp/full.safetensors"
that "to the same bytes" cmp "$tmp/whole.safetensors" "$tmp/full.safetensors"

# Stopped in its middle by a signal, and killed at some moment.
long="$weft train lora -m $model -d $tmp/data -p round --rank 4 -s 100000 -q -o $tmp/long.safetensors"
begin() { $long --checkpoint-every 1 "$@" >"$tmp/said" 2>"$tmp/heard" & job=$!; }
wait_for() { for i in $(seq 200); do [ -s "$1" ] && return; sleep 0.05; done; }
begin
wait_for "$tmp/long.checkpoint.safetensors"
kill -TERM $job; wait $job; status=$?; job=
that "a signal is a failure" test $status = 1
that "that says how to go on" grep -q 'to go on: weft train lora .*--resume' "$tmp/heard"
for i in 1 2 3 4; do
    begin --resume
    sleep 0.$((3 + 2 * i)); kill -KILL $job; wait $job 2>/dev/null; job=
    that "killed, it goes on" $long --stop-after 1 --checkpoint-every 1 --resume
done

# ---- pictures that it draws

that "samples, and a class" learn dreambooth-lora -q --rank 4 --class-prompt "a circle" --class-count 2 --sample-every 2 \
    --sample-prompt "a red circle" --sample-prompt "a star" -o "$tmp/cat.safetensors"
that "two of the class" test "$(ls "$tmp/cat-class" | wc -l)" = 2
for name in 000002-1 000002-2 000004-1 000004-2; do that "sample $name" is_png "$tmp/cat-samples/$name.png"; done
that "what was learned shows" sh -c "! cmp -s '$tmp/cat-samples/000002-1.png' '$tmp/cat-samples/000004-1.png'"
cksum "$tmp"/cat-class/* >"$tmp/drawn"
that "again" learn dreambooth-lora --rank 4 --class-prompt "a circle" --class-count 2 -o "$tmp/cat2.safetensors" \
    --class-data "$tmp/cat-class"
that "they were there" sh -c "! grep -q drew '$tmp/heard' && cksum '$tmp'/cat-class/* | cmp - '$tmp/drawn'"
that "and counted" grep -q '3 pictures and 2 of the class' "$tmp/said"

# ---- every recipe that learns from pictures alone

for recipe in dora loha lokr moslora blora; do that "$recipe" learn $recipe -q -o "$tmp/$recipe.safetensors"; done
for recipe in dora loha lokr moslora blora; do
    that "$recipe fits the model" "$weft" inspect "$tmp/$recipe.safetensors" --model $model
done
that "full" learn full -q -s 1 -b 1 -o "$tmp/full-model"
that "is a model" "$weft" generate "$tmp/full-model" -q -s 2 -p "a red circle" -o "$tmp/drawn.png"
# Words, from sentences that are made up around them.
mkdir "$tmp/plain" && cp "$tmp/data/it-2.png" "$tmp/data/it-3.png" "$tmp/plain"
words() { recipe=$1; shift; "$weft" train $recipe -m $model -d "$tmp/plain" -b 2 -s 2 -q "$@"; }
that "textual-inversion" words textual-inversion --tokens '<cup>' --initial circle -o "$tmp/cup.safetensors"
that "gives a word" "$weft" generate $model -q -s 2 -p "a <cup>" -c "$tmp/cup.safetensors" -o "$tmp/drawn.png"
that "custom-diffusion" words custom-diffusion --tokens '<cup>' --initial circle -o "$tmp/cd.safetensors"
that "gives weights and a word" "$weft" generate $model -q -s 2 -p "a <cup>" -a "$tmp/cd.safetensors" \
    -c "$tmp/cd.words.safetensors" --tokens '<cup>' -o "$tmp/drawn.png"
that "ed-lora" words ed-lora --tokens '<my>,<cup>' --initial red,circle -o "$tmp/ed.safetensors" --sample-every 2 \
    --sample-prompt "a <my> <cup>"
that "draws on the way" is_png "$tmp/ed-samples/000002-1.png"
that "gives both at once" "$weft" generate $model -q -s 2 -p "a <my> <cup>" -c "$tmp/ed.safetensors" -o "$tmp/drawn.png"
refuses 1 "it-1.png: the caption 'a red circle' has none of the words" "$weft" train textual-inversion -m $model -d "$tmp/data" \
    --tokens '<cup>' --initial circle -o "$tmp/x.safetensors"

# Columns of two adapters.
pair="--content $model/adapters/monster.safetensors --style $model/adapters/hatching.safetensors"
that "ziplora" "$weft" train ziplora -m $model -d "$tmp/data" -p "a zib monster" $pair --style-data "$tmp/plain" \
    --style-prompt "hatched style" -s 2 -q -o "$tmp/zip.safetensors"
that "gives coefficients" "$weft" generate $model -q -s 2 -p "a zib monster" -a $model/adapters/monster.safetensors \
    -a $model/adapters/hatching.safetensors --compose zip --coefficients "$tmp/zip.safetensors" -o "$tmp/drawn.png"

# ---- refusals

refuses 2 'which recipe' "$weft" train
refuses 2 "no recipe 'lore'" "$weft" train lore -m $model -d "$tmp/data" -o "$tmp/x.safetensors"
refuses 2 'which model' "$weft" train lora -d "$tmp/data" -o "$tmp/x.safetensors"
refuses 2 'from which pictures' "$weft" train lora -m $model -o "$tmp/x.safetensors"
refuses 2 'where to' "$weft" train lora -m $model -d "$tmp/data"
refuses 2 'keeps the class as it is' "$weft" train dreambooth -m $model -d "$tmp/data" -o "$tmp/x.safetensors"
refuses 2 'what do they show' $refused --class-count 3 -o "$tmp/x.safetensors"
refuses 2 'of ziplora' $refused --content "$tmp/whole.safetensors" -o "$tmp/x.safetensors"
refuses 2 'needs --content' "$weft" train ziplora -m $model -d "$tmp/data" -o "$tmp/x.safetensors"
refuses 2 'how often' $refused --sample-prompt x -o "$tmp/x.safetensors"
refuses 2 'multiples of' $refused --size 63x64 -o "$tmp/x.safetensors"
refuses 2 'name it so' $refused -o "$tmp/x.png"
refuses 1 'factor' $refused --factor 4 -o "$tmp/x.safetensors"
refuses 1 'nosuch' $refused --modules 'unet.nosuch*' -o "$tmp/x.safetensors"
refuses 1 'cannot write' $refused -o "$tmp/nowhere/x.safetensors"
# What cannot be written, and what would change nothing, is refused before the first step.
mkdir "$tmp/folder.safetensors"
refuses 1 'it is a folder' $refused -o "$tmp/folder.safetensors"
refuses 1 'no regular file' $refused --checkpoint /dev/full -o "$tmp/x.safetensors"
refuses 1 'no regular file' $refused --curve /dev/full -o "$tmp/x.safetensors"
refuses 2 'is empty' $refused -o ""
refuses 2 'safetensors file: name it so' $refused -o "$tmp/x"
refuses 2 'is a folder: name it so' $refused --dialect peft -o "$tmp/x.safetensors"
bare_full="$weft train full -m $model -d $tmp/data -p round -s 1 -q"
refuses 1 'is there already' $bare_full -o "$tmp/full-model"
refuses 2 'keeps the types' $bare_full --half -o "$tmp/x"
refuses 2 'a whole model has none' $bare_full --dialect kohya -o "$tmp/x"
refuses 2 'written as kohya only' $bare_full --dialect peft -o "$tmp/y.safetensors"
refuses 2 'a form of its own' "$weft" train textual-inversion -m $model -d "$tmp/data" --tokens '<x>' --dialect kohya -o "$tmp/x.safetensors"
refuses 2 'learns words: which' "$weft" train textual-inversion -m $model -d "$tmp/data" -o "$tmp/x.safetensors"
refuses 2 'between 1e-12 and' $refused --rate 0 -o "$tmp/x.safetensors"
refuses 1 'beta2 is set, which sgd' $refused --optimiser sgd --beta2 0.9 -o "$tmp/x.safetensors"
refuses 1 'which names all layers: --feed' $refused --modules 'unet.*.to_q' --feed -o "$tmp/x.safetensors"
refuses 1 'named by "nosuch"' $refused --modules 'unet.*.to_q,nosuch' -o "$tmp/x.safetensors"
that "and leaves nothing" sh -c "! ls '$tmp'/x.* '$tmp'/.[a-z]* 2>/dev/null"
bare="$weft train lora -m $model -q -s 1 -o $tmp/x.safetensors"
refuses 1 "$tmp/empty" $bare -d "$tmp/empty" -p x
refuses 1 "$tmp/nowhere" $bare -d "$tmp/nowhere" -p x
refuses 1 'it-2.png: no caption: there is no it-2.txt, and no --prompt was given' $bare -d "$tmp/data"
refuses 1 'and no --class-prompt was given' $bare -d "$tmp/data" -p x --class-data "$tmp/data"
refuses 1 'title is not UTF-8' $bare -d "$tmp/data" -p x --title "$(printf 'a\377')"
cp -r "$tmp/data" "$tmp/broken" && head -c 300 "$tmp/data/it-2.png" >"$tmp/broken/it-2.png"
refuses 1 'it-2.png' $bare -d "$tmp/broken" -p x
refuses 1 'it-1.png.*64 *x *64' $bare -d "$tmp/data" -p x --size 128x128
that "but enlarged it may be" $bare -d "$tmp/data" -p x --size 128x128 --small
total
