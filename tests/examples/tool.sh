#!/bin/sh
# The command-line tool on the bundled model: every subcommand, what an image's file holds, that a saved
# image can be drawn again from its own tensors, and what is said of a wrong command line or a wrong file.
set -u
. tests/examples/expect

monster=$model/adapters/monster.safetensors
hatching=$model/adapters/hatching.safetensors
few="--steps 3 --guidance 3"
draw() { "$weft" generate $model -q $few "$@"; }
hold() { LC_ALL=C grep -aqF -- "$2" "$1"; }

# ---- help

that "help" "$weft" --help
prints '^weft [0-9]+\.[0-9]+\.[0-9]+$' "$weft" --version
for sub in generate explain inspect convert merge conflicts fuse; do
    prints "^usage: weft $sub " "$weft" $sub --help
    prints "^usage: weft $sub " "$weft" help $sub
done
"$weft" help | sed -n 's/^  \([a-z-]*\)  .*/\1/p' >"$tmp/topics"
that "help names more than 20 pages" test "$(wc -l <"$tmp/topics")" -gt 20
while read -r topic; do prints "^ .*--[a-z0-9-]" "$weft" help $topic; done <"$tmp/topics"
prints "^K-LoRA: " "$weft" help klora
prints "^K-LoRA: " "$weft" generate --help klora
prints "--share W .*composite" "$weft" help subbands
prints "by-share.*\[generate, explain\]" "$weft" help adapters
that "the help of generate has a screen and a half" test "$("$weft" generate --help | wc -l)" -lt 70
refuses 2 "there is no help on 'nosuch'" "$weft" help nosuch
refuses 2 "about one word" "$weft" help klora zip

# ---- generate

that "an image" draw -p "a red circle" -n "a square" -o "$tmp/base.png" --save "$tmp/base.safetensors"
that "it is a PNG" hold "$tmp/base.png" PNG
that "with parameters" hold "$tmp/base.png" iTXtparameters
that "the prompt" hold "$tmp/base.png" "a red circle"
that "the negative prompt" hold "$tmp/base.png" "Negative prompt: a square"
that "the settings" hold "$tmp/base.png" "Steps: 3, Sampler: ddim, CFG scale: 3, Seed: 0, Size: 64x64"
draw -p "a red circle" -n "a square" -o "$tmp/again.png" --threads 1
that "the same for any number of threads" cmp "$tmp/base.png" "$tmp/again.png"
draw -p "a red circle" -o "$tmp/other.png" --seed 1
that "another for another seed" test "$(cksum <"$tmp/base.png")" != "$(cksum <"$tmp/other.png")"
that "48x80 pixels" draw -p "a red circle" -o "$tmp/size.png" --size 48x80
that "no parameters" draw -p "a red circle" -n "a square" -o "$tmp/plain.png" --no-parameters
if hold "$tmp/plain.png" iTXt; then failed "a text chunk with --no-parameters"; else passed; fi

# From the saved noise and conditioning: the same image, byte for byte.
for name in start latents text negative prediction_000 prediction_002; do
    that "saved $name" hold "$tmp/base.safetensors" "\"$name\""
done
draw --latents "$tmp/base.safetensors" --conditioning "$tmp/base.safetensors" -o "$tmp/again.png" --no-parameters
that "drawn again from its tensors" cmp "$tmp/plain.png" "$tmp/again.png"
# Likewise where each cross-attention layer has a conditioning of its own.
layered="$weft generate tests/data/models/tiny-sd1 --concept tests/data/concepts/layers.safetensors -s 2 --no-parameters -q"
that "a conditioning for each layer" $layered -p "a <dog1>" -n "a cat" -o "$tmp/layers.png" --save "$tmp/layers.safetensors"
that "taken from its file" $layered --conditioning "$tmp/layers.safetensors" -o "$tmp/again.png"
that "drawn again from that" cmp "$tmp/layers.png" "$tmp/again.png"

# ---- pictures as prompts

ip=tests/data/image_prompts
tiny() { "$weft" generate tests/data/models/tiny-sd1 -q -s 2 -p "a cat" --no-parameters "$@"; }
tiny -o "$tmp/unseen.png"
that "a picture as a prompt" tiny --ip-adapter $ip/base_sd1.safetensors:0.7 --image-prompt "$tmp/base.png" \
    --image-encoder $ip/encoder -o "$tmp/seen.png"
that "it is seen" test "$(cksum <"$tmp/unseen.png")" != "$(cksum <"$tmp/seen.png")"
tiny --ip-adapter $ip/base_sd1.bin:0.7 --image-prompt "$tmp/base.png" --image-encoder $ip/encoder -o "$tmp/again.png"
that "the same from a .bin" cmp "$tmp/seen.png" "$tmp/again.png"
tiny --ip-adapter $ip/base_sd1.bin:0 --image-prompt "$tmp/base.png" --image-encoder $ip/encoder -o "$tmp/again.png"
that "weight 0 sees nothing" cmp "$tmp/unseen.png" "$tmp/again.png"
tiny --ip-adapter $ip/base_sd1.bin --image-prompt "$tmp/base.png" --image-encoder $ip/encoder --image-prompt-blocks NONE \
    -o "$tmp/again.png"
that "nor does one in no block" cmp "$tmp/unseen.png" "$tmp/again.png"
tiny --ip-adapter $ip/base_sd1.bin --image-prompt "$tmp/base.png" --image-encoder $ip/encoder --image-prompt-curve 0=0,9=0 \
    -o "$tmp/again.png"
that "nor one whose curve is 0" cmp "$tmp/unseen.png" "$tmp/again.png"
tiny --ip-adapter $ip/base_sd1.bin:1.4 --image-prompt "$tmp/base.png" --image-encoder $ip/encoder \
    --image-prompt-curve 0=0.5,9=0.5 -o "$tmp/again.png"
that "a curve multiplies the weight" cmp "$tmp/seen.png" "$tmp/again.png"
that "several, and all their options" "$weft" generate tests/data/models/tiny-sdxl -q -s 2 -p "a cat" -g 1 \
    --ip-adapter $ip/plus_sdxl.safetensors --image-prompt "$tmp/base.png" --image-prompt "$tmp/size.png" \
    --image-prompt-blocks 'NONE,up_blocks.0.attentions.1*=1' --image-prompt-mask "$tmp/base.png" \
    --ip-adapter $ip/base_sdxl.safetensors:0.4 --image-prompt "$tmp/other.png" --image-encoder $ip/encoder -o "$tmp/two.png"
that "in the parameters" hold "$tmp/two.png" "Image prompts: \"$ip/plus_sdxl.safetensors:1 of $tmp/base.png and $tmp/size.png at NONE"
that "saved as a plan" tiny --ip-adapter $ip/base_sd1.safetensors:0.7 --image-prompt "$tmp/base.png" --image-encoder $ip/encoder \
    -o "$tmp/again.png" --save-plan "$tmp/seen.json"
that "and drawn from it" "$weft" generate tests/data/models/tiny-sd1 -q --no-parameters --plan "$tmp/seen.json" -o "$tmp/again.png" \
    --save-plan "$tmp/seen2.json"
that "the same" cmp "$tmp/seen.png" "$tmp/again.png"
that "and the same plan" cmp "$tmp/seen.json" "$tmp/seen2.json"
refuses 2 'the plan of --plan says that already' "$weft" generate tests/data/models/tiny-sd1 --plan "$tmp/seen.json" \
    --ip-adapter $ip/base_sd1.safetensors
sed 's/picture-0-0/picture-0-9/' "$tmp/seen.json" >"$tmp/unseen.json"
refuses 1 'no note says which picture' "$weft" generate tests/data/models/tiny-sd1 --plan "$tmp/unseen.json" -o "$tmp/again.png"
prints 'plus_sdxl .plus. +weight 0.5, 1 picture, 6 rows, at 2 of 17 cross-attentions' "$weft" explain tests/data/models/tiny-sdxl \
    --ip-adapter $ip/plus_sdxl.safetensors:0.5 --image-prompt-blocks 'NONE,up_blocks.0.attentions.1*=1'
explained() { "$weft" explain tests/data/models/tiny-sd1 -q "$@" -o "$tmp/explained.png" >"$tmp/out" && cksum <"$tmp/explained.png"; }
one=$(explained --ip-adapter $ip/base_sd1.bin)
that "its picture names it" test "$one" != "$(explained)"
that "and shows its curve" test "$one" != "$(explained --ip-adapter $ip/base_sd1.bin --image-prompt-curve 0=0,9=1)"
prints 'IP-Adapter, plus: give it with --ip-adapter' "$weft" inspect $ip/plus_sdxl.safetensors

# ---- adapters and methods

that "an adapter" draw -p "a zib monster" -a $monster -o "$tmp/one.png"
that "named in the parameters" hold "$tmp/one.png" "Adapters: \"$monster:1\""
draw -p "a zib monster" -o "$tmp/none.png" --no-parameters
draw -p "a zib monster" -a $monster:0 -o "$tmp/zero.png" --no-parameters
that "weight 0 is the base model" cmp "$tmp/none.png" "$tmp/zero.png"
# That each method and each solver draws what the library does, test_tool.c sees to.
that "options of a plan" draw -p "a zib monster" -a $monster --partial -a $hatching --text-plan all --path side \
    -o "$tmp/options.png"
prints '^arithmetic: f32, by ' "$weft" explain $model
prints '^arithmetic: bf16.*, by .*bf16' "$weft" explain $model --arithmetic bf16 --emulate
prints '"arithmetic": "bf16"' "$weft" explain $model --arithmetic bf16 --emulate --json
that "in bf16" draw -p "a zib monster" --arithmetic bf16 --emulate -o "$tmp/bf16.png"
that "said in the parameters" hold "$tmp/bf16.png" ", Arithmetic: bf16"
that "of f32 nothing is said" sh -c "! grep -qa Arithmetic '$tmp/options.png'"
two="-a $monster -a $hatching"
that "phases" draw -p "a zib monster" $two --compose switch --period 1 --phase 1 --compose klora --phase 0.6 \
    -o "$tmp/phases.png"
that "in the parameters" hold "$tmp/phases.png" \
    "Compose: switch, Phase: klora from call 1, Phase: merge from 0.6 of the calls"
prints '20 calls, 64 evaluations' "$weft" explain $model $two --compose klora --phase 0.4 --compose composite
prints 'B1 A1 B2 A1 B2 A1' "$weft" explain $model $two -s 8 --compose switch --period 1 --turns B,A,B
prints '8 calls, 48 evaluations' "$weft" explain $model $two -s 8 --compose loratorio
prints '5 of 16 evaluations reuse deep features' "$weft" explain $model $two -s 8 --compose composite --cached
draw -p "a zib monster" $two -s 8 --compose composite --cached -o "$tmp/cached.png" --no-parameters
"$weft" generate $model -q -p "a zib monster" $two -s 8 -g 3 --compose composite --cached --measure -o "$tmp/measured.png" --no-parameters 2>"$tmp/said"
that "the error of reused features is said" grep -Eq 'change a call.s result by at most (0\.[0-9]*[1-9]|[0-9.]+e-)' "$tmp/said"
prints '7 of 2 wavelet levels' "$weft" explain $model $two --compose subbands
prints '^  phase 1 .*Composite, calls 8 to 19' "$weft" explain $model $two --compose klora --phase 8 --compose composite
samplers=$("$weft" generate $model --sampler '?' 2>&1 |
    sed -n "s/.*there is no '?', only //p" | sed 's/;.*//; s/,//g; s/ or / /')
that "the samplers are listed" test "$(echo $samplers | wc -w)" -ge 19
that "one of them" draw -p "a red circle" --sampler heun -o "$tmp/heun.png"
that "a class of diffusers'" draw -p "a red circle" --sampler HeunDiscreteScheduler -o "$tmp/class.png"
that "is its solver" cmp "$tmp/class.png" "$tmp/heun.png"
draw -p "a red circle" --sampler dpmpp_2m --order 3 --no-parameters -o "$tmp/order.png"
draw -p "a red circle" --sampler dpmpp_3m --no-parameters -o "$tmp/3m.png"
that "dpmpp_2m of order 3 is dpmpp_3m" cmp "$tmp/order.png" "$tmp/3m.png"
draw -p "a red circle" --sampler unipc --order 1 -o "$tmp/first.png"
that "the order is in the parameters" hold "$tmp/first.png" "Solver order: 1"
refuses 1 'order is 2, but euler has none' "$weft" generate $model -p x --sampler euler --order 2
that "karras" draw -p "a red circle" --sampler euler --karras --spacing trailing -o "$tmp/karras.png"
that "A1111's name" draw -p "a red circle" --sampler "DPM++ 2M SDE Karras" -o "$tmp/names.png"
that "in the parameters, as a name" hold "$tmp/names.png" "Sampler: dpmpp_2m_sde karras, CFG scale"
that "and read again" draw -p "a red circle" --sampler "dpmpp_2m_sde karras" -o "$tmp/again.png"
that "the same" cmp "$tmp/again.png" "$tmp/names.png"
that "a schedule" draw -p "a red circle" --sampler dpmpp_2m_sde --schedule karras -o "$tmp/again.png"
that "is the same" cmp "$tmp/again.png" "$tmp/names.png"
prints '20 steps of euler align_your_steps:' "$weft" explain $model --sampler Euler --schedule "Align Your Steps"
that "eta" draw -p "a red circle" --eta 0.5 --guidance-rescale 0.5 -o "$tmp/eta.png"

that "sigmas" "$weft" generate $model -q -p "a red circle" --sampler euler --sigmas 14.6,5,1.5,0.4 -o "$tmp/sigmas.png"
draw -p "a red circle" -o "$tmp/tile.png" --tile 16 --no-parameters
draw -p "a red circle" -o "$tmp/whole.png" --no-parameters
that "one tile is the whole image" cmp "$tmp/tile.png" "$tmp/whole.png"

# ---- curves and regions

draw -p "a zib monster" -a $monster --curve 0=0,3=0 --text-plan none -o "$tmp/curve.png" --no-parameters
that "a curve of zeros is the base model" cmp "$tmp/none.png" "$tmp/curve.png"
draw -p "a zib monster" -a $monster --curve 0.0=0,0.5=1 --curve-shape hold -o "$tmp/curve.png" --no-parameters
that "a curve is another image" test "$(cksum <"$tmp/curve.png")" != "$(cksum <"$tmp/none.png")"
draw -p "a zib monster" -a $monster --region "$tmp/none.png" -o "$tmp/region.png" --no-parameters
that "a region is another image" test "$(cksum <"$tmp/region.png")" != "$(cksum <"$tmp/none.png")"
draw -p "a zib monster" -a $monster --region "$tmp/none.png" --compose blend -o "$tmp/blend.png" --no-parameters
that "blend is another image" test "$(cksum <"$tmp/blend.png")" != "$(cksum <"$tmp/region.png")"
draw -p "a zib monster" -a $monster --region "$tmp/none.png" --compose blend --start 99 --text-plan none -o "$tmp/blend.png" --no-parameters
that "a blend that never starts is the base model" cmp "$tmp/none.png" "$tmp/blend.png"
# One pixel, white and black.
printf '\211\120\116\107\015\012\032\012\000\000\000\015\111\110\104\122\000\000\000\001\000\000\000\001\010\000\000\000\000\072\176\233\125\000\000\000\012\111\104\101\124\170\234\143\370\017\000\001\001\001\000\261\070\366\024\000\000\000\000\111\105\116\104\256\102\140\202' >"$tmp/white.png"
printf '\211\120\116\107\015\012\032\012\000\000\000\015\111\110\104\122\000\000\000\001\000\000\000\001\010\000\000\000\000\072\176\233\125\000\000\000\012\111\104\101\124\170\234\143\140\000\000\000\002\000\001\110\257\244\161\000\000\000\000\111\105\116\104\256\102\140\202' >"$tmp/black.png"
draw -p "a red circle" --region "$tmp/white.png:a zib monster" -o "$tmp/part.png" --no-parameters
that "a prompt everywhere is the prompt" cmp "$tmp/none.png" "$tmp/part.png"
draw -p "a zib monster" --region "$tmp/black.png:a red circle" -o "$tmp/part.png" --no-parameters
that "a prompt nowhere is none" cmp "$tmp/none.png" "$tmp/part.png"
draw -p "a zib monster" -a $monster -o "$tmp/acts.png" --no-parameters
draw -p "a zib monster" -a $monster --region "$tmp/white.png:a zib monster" -o "$tmp/part.png" --no-parameters
that "everywhere with its prompt an adapter is the adapter" cmp "$tmp/acts.png" "$tmp/part.png"
parts="--region $tmp/none.png:square -a $monster --region $tmp/curve.png:zib"
draw -p "a red circle" $parts -o "$tmp/two.png"
that "regions in the parameters" hold "$tmp/two.png" "Regions: \"$tmp/none.png: square, $tmp/curve.png for $monster: zib\""
draw -p "a red circle" $parts --isolate -o "$tmp/apart.png"
that "isolated in the parameters" hold "$tmp/apart.png" ", Isolated"
parts="--region $tmp/white.png:a -a $monster --region $tmp/white.png:b"
prints '^regions with prompts of their own' "$weft" explain $model $parts
prints '100.0 % of the image, where A acts.*; isolated' "$weft" explain $model $parts --isolate
refuses 2 'it has no prompt' "$weft" generate $model -p x --region "$tmp/white.png"
refuses 2 'names no file' "$weft" generate $model -p x --region :x
refuses 2 'already' "$weft" generate $model -p x -a $monster --region "$tmp/white.png" --region "$tmp/white.png:x"
refuses 2 'needs two regions' "$weft" generate $model -p x -a $monster --region "$tmp/white.png" --isolate
refuses 2 'stands in for prompts' "$weft" generate $model --conditioning "$tmp/base.safetensors" --region "$tmp/white.png:x"
refuses 1 'nowhere.png' "$weft" generate $model -p x --region "$tmp/nowhere.png:x"
refuses 1 'none of 1 adapters has a mask' "$weft" generate $model -p x -a $monster --compose blend
refuses 2 'is of blend' "$weft" generate $model -p x -a $monster --start 3
refuses 2 'not like 0=0,8=1' "$weft" generate $model -p x -a $monster --curve 1
refuses 2 'one or the other' "$weft" generate $model -p x -a $monster --curve 0=1,0.5=2
refuses 1 'goes forwards' "$weft" generate $model -p x -a $monster --curve 3=1,2=2
refuses 2 'none' "$weft" generate $model -p x --curve 1=2
refuses 2 'tokens only' "$weft" generate $model -p x -c $model/words/teal.safetensors --curve 1=2

# ---- block weights, ZipLoRA, B-LoRA, and plans in one adapter

draw -p "a zib monster" -a $monster --blocks NONE -o "$tmp/blocks.png" --no-parameters
that "blocks of no weight are the base model" cmp "$tmp/none.png" "$tmp/blocks.png"
prints '^      blocks BASE=1 IN00-IN05=0 MID=0.5 OUT00-OUT05=1$' "$weft" explain $model -a $monster --blocks OUTALL,MID=0.5
refuses 1 '3 numbers; this model takes 14 (all blocks) or 8 (BASE and those with attention)' \
    "$weft" explain $model -a $monster --blocks 1,0,1
refuses 2 'tokens only: --blocks' "$weft" generate $model -p x -c $model/words/teal.safetensors --blocks ALL
two="-a $monster -a $hatching"
prints '^  columns    in closed form, lambda 0.5, in [0-9]+ layers of both' "$weft" explain $model $two --compose zip --lambda 0.5
prints '^  style      from unet.down_blocks.0.\*,unet.up_blocks.2.\*' "$weft" explain $model $two --compose blora
refuses 2 'lambda is of zip' "$weft" explain $model $two --lambda 0.5
refuses 2 'squared is of blora' "$weft" explain $model $two --compose zip --squared
refuses 1 'needs exactly two adapters' "$weft" explain $model -a $monster --compose zip
zip="--compose zip --lambda 0.4 --style-weight 0.8"
that "two as one" "$weft" merge $model -q $two $zip --into adapter --save-coefficients "$tmp/columns.safetensors" -o "$tmp/one.safetensors"
draw -p "a zib monster, hatched style" $two $zip -o "$tmp/two.png" --no-parameters
that "it fits" "$weft" inspect "$tmp/one.safetensors" --model $model
prints ' 8-16 +kohya +one$' "$weft" explain $model -a "$tmp/one.safetensors:1"
draw -p "a zib monster, hatched style" $two --compose zip --coefficients "$tmp/columns.safetensors" --style-weight 0.8 \
    -o "$tmp/columns.png" --no-parameters
that "masks are found" draw -p "a zib monster and a red star" -a $monster --words "zib monster" -a "$model/adapters/mosaic.safetensors" \
    --words "red star" --find-masks 3 --save-masks "$tmp/found" --steps 4 -o "$tmp/found.png"
that "and written" test -s "$tmp/found-A.png" -a -s "$tmp/found-B.png"
that "masks are found and kept" draw -p "a zib monster and a red star" -a $monster --words "zib monster" -a "$model/adapters/mosaic.safetensors" \
    --words "red star" --find-masks 3 --steps 4 --no-parameters --save-plan "$tmp/found.json" -o "$tmp/found.png"
that "the plan has them" "$weft" generate $model -q --no-parameters --plan "$tmp/found.json" -o "$tmp/again.png"
that "and is the picture" cmp "$tmp/found.png" "$tmp/again.png"
refuses 2 '1 adapters have --words, wanted 2 or more' "$weft" generate $model -p "a zib monster" -a $monster --words "zib monster" --find-masks 3 -o "$tmp/no.png"
refuses 2 '--words is of --find-masks' "$weft" generate $model -p "a zib monster" -a $monster --words "zib monster" -o "$tmp/no.png"
refuses 1 "the words 'green' are not in the prompt" "$weft" generate $model -p "a zib monster" -a $monster --words "zib" -a $monster --words green \
    --find-masks 3 -o "$tmp/no.png"
that "coefficients of a file are the same" cmp "$tmp/two.png" "$tmp/columns.png"
that "a checkpoint of them" "$weft" merge $model -q $two $zip -o "$tmp/zipped"
that "in PEFT's form" "$weft" merge $model -q $two --compose blora --into adapter --dialect peft -o "$tmp/one_peft"
refuses 2 'by is not for --compose, which is folded exactly' "$weft" merge $model -q $two $zip --into adapter --by concat -o "$tmp/no.safetensors"
that "weights by block in one adapter" "$weft" merge $model -q $two --blocks OUTALL --into adapter -o "$tmp/outall.safetensors"
refuses 2 'of --compose zip' "$weft" merge $model -q $two --save-coefficients "$tmp/c.safetensors" -o "$tmp/half"
refuses 2 '--output and --trace are both' "$weft" generate $model -p x -o "$tmp/x.png" --trace "$tmp/x.png"
refuses 2 'which is read: wanted another file' "$weft" merge $model -a "$tmp/one.safetensors" -a $monster --into adapter -o "$tmp/one.safetensors"
prints 'monster: 12 layers of the text encoders left out by K-LoRA' "$weft" explain $model $two --compose klora
refuses 1 'the coefficients of LoRA Switch change' "$weft" merge $model -q $two --compose switch --into adapter -o "$tmp/no.safetensors"
refuses 1 'coefficients of K-LoRA change' "$weft" merge $model -q -a $hatching -a "$model/adapters/mosaic.safetensors" --compose klora -o "$tmp/no"
refuses 1 'LoRA Composite has 2 branches' "$weft" merge $model -q $two --compose composite -o "$tmp/composite"

# ---- tokens, weights, clip skip

word=$model/words/teal.safetensors
draw -p "a <teal> star" -o "$tmp/unknown.png" --no-parameters
for options in "-c $word" "-c $word --tokens <blue-green>,"; do
    name=$(echo "$options" | grep -q -- --tokens && echo "<blue-green>" || echo "<teal>")
    draw -p "a $name star" ${options%,} -o "$tmp/$name.png" --no-parameters
done
that "a token" test "$(cksum <"$tmp/<teal>.png")" != "$(cksum <"$tmp/unknown.png")"
that "the same by another name" cmp "$tmp/<teal>.png" "$tmp/<blue-green>.png"
draw -p "a teal star" -c $word -o "$tmp/file.png" --no-parameters
that "the same by the file's name" cmp "$tmp/<teal>.png" "$tmp/file.png"

# What has no effect is said, in one line each, and what to do.
says() { that "said: $1" grep -qF -- "$1" "$tmp/said"; }
silent() { if grep -qF -- "$1" "$tmp/said"; then failed "said: $1"; else passed; fi; }
talk() { "$weft" generate $model $few -o "$tmp/said.png" "$@" 2>"$tmp/said"; }
talk -p "a <teal> star" -c $word
says "weft: $word gives <teal> or teal"
silent warning
talk -p "a star" -n "teal" -c $word
silent warning
talk -p "a star" -c $word
says "weft: warning: $word: no prompt has what it gives: write <teal> or teal where it is meant"
talk -p "a star" -c $word --tokens "<a>"
says "no prompt has what it gives: write <a> where it is meant"
talk -p "a <teal> star" -c $word:0.5
says "weft: warning: $word: there is no adapter in it that a weight or a choice of layers could act on"
talk -p "a <lora:monster:0.8> (red:1.3) embedding:teal, <purple> BREAK [cat:dog:0.5] AND {big|small}"
for said in "<lora:monster:0.8>, which is read as words: adapters are added with --adapter" \
    "(red:1.3), which is read as words: weights are read with --weighting" \
    "embedding:teal, which is read as words: a file of tokens is added with --concept" \
    "<purple>, which is read as words: no concept of the plan has this token; one is added with --concept" \
    "BREAK, which is read as words: it begins a chunk with --weighting" \
    "AND, which is read as words: a prompt is one text; parts of the image have others with --region" \
    "{big|small}, which is read as words: nothing is drawn from a list" \
    "[cat:dog:0.5], which is read as words: a prompt stays as it is; --prompt-from says another from a call on"; do says "weft: warning: the prompt has $said"; done
talk -p "a (red:1.3) star BREAK (blue)" --weighting a1111
silent warning
talk -p "a star AND_ BRAND ANDY and a {heart} and 3}|" --steps 2
silent warning
talk --latents "$tmp/base.safetensors" --conditioning "$tmp/base.safetensors" -c $word
says "weft: warning: $word: its tokens have no effect: --conditioning stands in for prompts"
bundle="tests/data/concepts/bundle.safetensors -p ohwx -s 1 -o $tmp/said.png"
"$weft" generate tests/data/models/tiny-sd1 -a $bundle 2>"$tmp/said"
says "weft: warning: adapter bundle: its file has 1 embedding of tokens too, which prompts do not know unless it is added with --concept"
"$weft" generate tests/data/models/tiny-sd1 -c $bundle 2>"$tmp/said"
silent warning
for way in a1111 plain empty; do
    that "weighting $way" draw -p "a (red:1.4) [circle]" --weighting $way -o "$tmp/$way.png" --no-parameters
done
that "ways of weighting differ" test "$(cksum <"$tmp/a1111.png")" != "$(cksum <"$tmp/empty.png")"
that "clip skip" draw -p "a red circle" --clip-skip 1 -o "$tmp/skip.png"

# ---- beginning with an image, and a mask

that "img2img" draw -p "a green circle" -i "$tmp/plain.png" --strength 0.7 -o "$tmp/i2i.png"
that "its strength is among the settings" hold "$tmp/i2i.png" "Denoising strength: 0.7"
that "a mask" draw -p "a green circle" -i "$tmp/plain.png" --mask "$tmp/plain.png" -o "$tmp/masked.png"
# As in diffusers the noise of the latents is the second that is drawn, behind that of the image: the second half of
# what an image of twice the size begins with.
start() {
    length=$(($(od -An -tu8 -N8 "$1")))
    range=$(head -c $((8 + length)) "$1" | tail -c +9 | sed 's/.*"start":{[^}]*"data_offsets":.\([0-9]*\),\([0-9]*\).*/\1 \2/')
    tail -c +$((9 + length + ${range% *})) "$1" | head -c $((${range#* } - ${range% *}))
}
that "img2img saves its noise" draw -p x -i "$tmp/plain.png" --size 64x64 -o "$tmp/x.png" --save "$tmp/i2i.safetensors"
that "twice the noise" draw -p x --size 64x128 -o "$tmp/x.png" --save "$tmp/tall.safetensors"
start "$tmp/i2i.safetensors" >"$tmp/i2i.start"
start "$tmp/tall.safetensors" | tail -c "$(wc -c <"$tmp/i2i.start")" >"$tmp/tall.start"
that "there is noise" test -s "$tmp/i2i.start"
that "the noise comes second" cmp "$tmp/i2i.start" "$tmp/tall.start"
that "another size" draw -p "a green circle" -i "$tmp/plain.png" --size 96x64 -o "$tmp/wide.png"
tiny=tests/data/models
that "an inpainting model" "$weft" generate $tiny/tiny-inpaint -q $few -p "a cat" -i "$tmp/plain.png" --mask "$tmp/plain.png" \
    -o "$tmp/inpaint.png"
refuses 2 'wants --image and --mask' "$weft" generate $tiny/tiny-inpaint -p "a cat"
that "a model that is told its guidance" "$weft" generate $tiny/tiny-lcm -q -p "a cat" --sampler lcm --steps 2 \
    --guidance 4 -o "$tmp/lcm.png"
that "SDXL without a negative prompt" "$weft" generate $tiny/tiny-sdxl -q $few -p "a cat" -o "$tmp/zeros.png" --no-parameters
"$weft" generate $tiny/tiny-sdxl -q $few -p "a cat" -n "" -o "$tmp/empty.png" --no-parameters
that "is another image than with an empty one" test "$(cksum <"$tmp/zeros.png")" != "$(cksum <"$tmp/empty.png")"

# ---- fused concepts

fuse="$weft fuse $model"
both="-a $monster --called zib -p zib -a $hatching --called hatched"
quick="--steps 2 --size 32x32"
prints '^2 concepts, 118 layers: .* beside a run, 8 prompts, 4 calls of the denoiser' $fuse $both $quick -o "$tmp/fused.safetensors"
prints '^118 layers; of what the concepts change there, .* is left; residual at most' $fuse $both $quick --report -q -o "$tmp/fused.safetensors"
prints '118 modules' "$weft" inspect "$tmp/fused.safetensors" --model $model
that "a fused adapter draws" draw -p "a zib monster" -a "$tmp/fused.safetensors" -o "$tmp/x.png"
$fuse $both $quick -q --threads 1 --budget 100 -o "$tmp/grouped.safetensors"
that "the same in groups and on one thread" cmp "$tmp/fused.safetensors" "$tmp/grouped.safetensors"
prints ' 12 prompts, 8 calls ' $fuse $both $quick --images 2 --ordinary "a red circle" --rank 8 --half -o "$tmp/low.safetensors"
prints '8 ' "$weft" inspect "$tmp/low.safetensors"
printf 'a red circle\r\n\na blue star at night\n' >"$tmp/captions.txt"
keys="--select *attn2.to_k,*attn2.to_v"
prints '^14 layers; ' $fuse -a $monster $keys --called zib -a $hatching $keys --called hatched --by constrained \
    --captions "$tmp/captions.txt" --skip-photo -o "$tmp/kept.safetensors"
prints '^2 concepts, 118 layers: .* beside a run, 2 prompts, 2 calls of the denoiser' $fuse $both --by routed --size 32x32 -o "$tmp/routed.safetensors"
prints '118 modules' "$weft" inspect "$tmp/routed.safetensors" --model $model
that "a routed adapter draws" draw -p "a zib monster" -a "$tmp/routed.safetensors" -o "$tmp/x.png"
prints ' 4 prompts, 12 calls ' $fuse -a $monster --called zib --images 2 -a $hatching --called hatched --images 2 --by routed --steps 3 --ridge 0.05 --size 32x32 -o "$tmp/x.safetensors"
refuses 2 'budget is of --by gradient' $fuse $both --by routed --budget 10 -o "$tmp/x.safetensors"
refuses 2 'ordinary is of --by gradient' $fuse $both --by routed --ordinary x -o "$tmp/x.safetensors"
refuses 2 'captions is of --by constrained' $fuse $both --by routed --captions "$tmp/captions.txt" -o "$tmp/x.safetensors"
refuses 1 'and --by routed chooses between pairs: bring it to a rank first with weft merge --into adapter --rank' \
    $fuse -a "$tmp/fused.safetensors" --called zib -a $hatching --called hatched --by routed -o "$tmp/x.safetensors"
that "a token alone is a concept too" $fuse -q -c $model/words/teal.safetensors -a $monster --called zib $quick -o "$tmp/x.safetensors"
refuses 2 'fuse what' $fuse -o "$tmp/x.safetensors"
refuses 2 'where to' $fuse $both
refuses 2 'needs --captions' $fuse $both --by constrained -o "$tmp/x.safetensors"
refuses 2 'captions is of --by constrained' $fuse $both --captions "$tmp/captions.txt" -o "$tmp/x.safetensors"
refuses 2 'ordinary is of --by gradient' $fuse $both --by constrained --captions "$tmp/captions.txt" --ordinary x -o "$tmp/x.safetensors"
refuses 2 'there is no .warp., only' $fuse $both --sampler warp -o "$tmp/x.safetensors"
refuses 1 'needs a name' $fuse -a $monster -o "$tmp/x.safetensors"
refuses 1 'or fuse --by gradient' $fuse $both --by constrained --captions "$tmp/captions.txt" -o "$tmp/x.safetensors"
: >"$tmp/none.txt"
refuses 1 'has no captions' $fuse $both --by constrained --captions "$tmp/none.txt" -o "$tmp/x.safetensors"
refuses 1 'and the budget is' $fuse $both $quick --budget 1 -o "$tmp/x.safetensors"

# ---- single files, conversion, merged checkpoints

single=tests/data/layouts/tiny-sdxl.safetensors
that "a single file" "$weft" generate $single --config $tiny/tiny-sdxl -q $few -p "a cat" -o "$tmp/single.png" --no-parameters
that "draws what its folder draws" cmp "$tmp/single.png" "$tmp/zeros.png"
for dialect in kohya diffusers; do
    that "to $dialect" "$weft" convert $monster --model $model --dialect $dialect -o "$tmp/$dialect.safetensors"
    prints 'keys matched' "$weft" inspect "$tmp/$dialect.safetensors" --model $model
    draw -p "a zib monster" -a "$tmp/$dialect.safetensors" -o "$tmp/converted.png" --no-parameters
    draw -p "a zib monster" -a $monster -o "$tmp/one.png" --no-parameters
    that "the image of $dialect" cmp "$tmp/converted.png" "$tmp/one.png"
done
that "to peft" "$weft" convert $hatching --model $model --dialect peft --half -q -o "$tmp/peft"
that "a folder of it" test -s "$tmp/peft/unet/adapter_config.json"
that "merge" "$weft" merge $model -a $hatching:0.8 -o "$tmp/merged"
prints 'SD1.x' "$weft" inspect "$tmp/merged"
red="a red circle, hatched style"
that "the merged model draws" "$weft" generate "$tmp/merged" -q $few -p "$red" -o "$tmp/x.png" --no-parameters
draw -p "$red" -o "$tmp/unmerged.png" --no-parameters
that "another image" test "$(cksum <"$tmp/x.png")" != "$(cksum <"$tmp/unmerged.png")"
that "the steps of --sigmas are counted" "$weft" generate $model -q -p "$red" --sampler euler --sigmas 14,4,1 -o "$tmp/x.png"
that "in the parameters" hold "$tmp/x.png" "Steps: 3"
refuses 2 'for which model' "$weft" convert $monster -o "$tmp/x.safetensors"
refuses 2 'merge what' "$weft" merge $model -o "$tmp/x"
refuses 1 '' "$weft" merge $model -a $hatching -o "$tmp/merged"

# ---- several adapters into one

pair="-a $monster -a $hatching:0.7"
that "merge into an adapter" "$weft" merge $model $pair --into adapter -q --by concat -o "$tmp/concat.safetensors"
that "it draws" draw -p "a zib monster" -a "$tmp/concat.safetensors" -o "$tmp/concat.png"
prints '^118 layers, 84 of them of more than one adapter; rank 4 to 4; error ' "$weft" merge $model $pair --into adapter \
    --by ties --density 0.3 --rank 4 -o "$tmp/ties.safetensors"
prints '^ +[1-4] .* unet.down_blocks' "$weft" merge $model $pair --into adapter --rank 4 --report -o "$tmp/ranks.safetensors"
prints 'keys matched' "$weft" inspect "$tmp/ties.safetensors" --model $model
prints 'rank      4' "$weft" inspect "$tmp/ties.safetensors"
for by in "prune --density 0.5" "dare --density 0.5 --seed 3" "dare-ties --density 0.5 --majority frequency" \
          "mixer --mix 0.5" "null-space" "null-space --mu 3 --rank 3" "sum --error 0.2 --clamp 0.99 --conv-rank 2 --rank 5" "concat --kohya" "sum --factors" \
          "sum --mixed direction --half --rank 3 --dialect diffusers" "sum --rank 3 --double-scale"; do
    one=-
    case $by in *factors*) one="-a $monster" ;; *) one=$pair ;; esac
    that "--by $by" "$weft" merge $model $one --into adapter -q --by $by -o "$tmp/by.safetensors"
    that "fits: $by" "$weft" inspect "$tmp/by.safetensors" --model $model
done
"$weft" merge $model $pair --into adapter -q --by dare --density 0.5 --seed 3 -o "$tmp/dare.safetensors"
"$weft" merge $model $pair --into adapter -q --by dare --density 0.5 --seed 3 -o "$tmp/dare2.safetensors"
"$weft" merge $model $pair --into adapter -q --by dare --density 0.5 --seed 4 -o "$tmp/dare3.safetensors"
that "the same draws" cmp "$tmp/dare.safetensors" "$tmp/dare2.safetensors"
that "others for another seed" test "$(cksum <"$tmp/dare.safetensors")" != "$(cksum <"$tmp/dare3.safetensors")"
that "to a folder of PEFT" "$weft" merge $model $pair --into adapter -q --rank 4 --dialect peft -o "$tmp/merged_peft"
that "which has a configuration" test -s "$tmp/merged_peft/unet/adapter_config.json"
refuses 2 '--rank is of --into adapter' "$weft" merge $model $pair --rank 4 -o "$tmp/no"
refuses 2 '--by ties needs a --density' "$weft" merge $model $pair --into adapter --by ties -o "$tmp/no.safetensors"
refuses 2 '--mu is of --by null-space' "$weft" merge $model $pair --into adapter --mu 1 -o "$tmp/no.safetensors"
refuses 2 '--mix is of --by mixer' "$weft" merge $model $pair --into adapter --mix 1 -o "$tmp/no.safetensors"
refuses 2 '--peft-dora is of --into model' "$weft" merge $model $pair --peft-dora --into adapter -o "$tmp/no.safetensors"
refuses 2 '--mixed stack is of --into model' "$weft" merge $model $pair --mixed stack --into adapter -o "$tmp/no.safetensors"
refuses 2 '--rank: 0 is not between 1' "$weft" merge $model $pair --into adapter --rank 0 -o "$tmp/no.safetensors"
refuses 1 'the sum: it keeps all entries, and has no density' "$weft" merge $model $pair --into adapter --density 0.5 \
    -o "$tmp/no.safetensors"
refuses 1 'DARE keeps a density above 0' "$weft" merge $model $pair --into adapter --by dare --density 0 -o "$tmp/no.safetensors"
that "nothing was written" test ! -e "$tmp/no.safetensors"

# ---- a long prompt is encoded whole, and the tool says so

long="a red circle on a blue background"
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do long="$long, a red circle at the left"; done
"$weft" generate $model $few -p "$long" -o "$tmp/long.png" 2>"$tmp/said"
that "a long prompt is announced" grep -q 'tokens: encoded whole, in [2-9] chunks of 75' "$tmp/said"

# ---- inspect and explain

prints 'SD1.x' "$weft" inspect $model
prints '^  layers ' "$weft" inspect $model
prints 'down_blocks.*to_q: \(' "$weft" inspect $model --keys
prints 'diffusers' "$weft" inspect $monster
prints 'kohya' "$weft" inspect $hatching
prints '^  rank      8' "$weft" inspect $hatching
prints 'hatched style \([0-9]+\)' "$weft" inspect $hatching
prints 'alpha' "$weft" inspect $hatching --keys
prints 'peft' "$weft" inspect $model/adapters/rocket
prints '^  scales    84 modules of lora, rank 8, alpha 4 \(tensor\), scale 0.5' "$weft" inspect $hatching
prints 'to_q: lora, rank 8, alpha 8 \(configuration: lora_alpha\), scale 1' "$weft" inspect $model/adapters/rocket --keys
prints '^  warning .*nothing says the alpha of .*--adapter-alpha' "$weft" inspect tests/data/adapters/sd1_kohya_noalpha.safetensors
prints '^  scales    84 modules of lora, rank 8, alpha not said, scale 1' "$weft" inspect $model/adapters/mosaic.safetensors
prints '118 modules of lora, rank 8, alpha 8 \(metadata: lora_alpha\), scale 1' "$weft" explain $model -a $monster
for adapter in monster.safetensors rocket hatching.safetensors mosaic.safetensors; do
    prints 'against .* keys matched' "$weft" inspect $model/adapters/$adapter --model $model
done
prints '20 calls, 40 evaluations' "$weft" explain $model -a $monster -a $hatching --compose klora -o "$tmp/table.png"
that "the table's image" hold "$tmp/table.png" PNG
prints '20 calls, 80 evaluations' "$weft" explain $model -a $monster -a $hatching --compose composite
sd1=tests/data/models/tiny-sd1 mixed="-a tests/data/families/peft_lora -a tests/data/families/peft_dora"
prints 'mixed +stack.* 12 layers of the UNet' "$weft" explain $sd1 $mixed --mixed stack
refuses 1 'policy inside needs .* LoRA Switch' "$weft" explain $sd1 $mixed --mixed inside --compose switch
that "a checkpoint under a policy" "$weft" merge -q $sd1 $mixed --mixed direction -o "$tmp/directed"

# A PEFT file away from its configuration does not open until somebody says its alpha or its scale.
alone=$tmp/alone.safetensors
cp $model/adapters/rocket/adapter_model.safetensors $alone
refuses 1 'alone: .*nothing says its alpha.* give --adapter-alpha or --adapter-scale$' "$weft" explain $model -a $alone
refuses 1 'nothing says its alpha.* give --adapter-alpha' "$weft" inspect $alone
prints 'alpha 4 \(option: alpha\), scale 0.5' "$weft" explain $model -a $alone --adapter-alpha 4
prints 'alpha 4 \(option: scale\), scale 0.5' "$weft" inspect $alone --adapter-scale 0.5
that "converted" "$weft" convert -q $alone -m $model --adapter-alpha 4 -o "$tmp/said_alpha.safetensors"
prints 'alpha 4 \(tensor\), scale 0.5' "$weft" inspect "$tmp/said_alpha.safetensors"
draw -p "a rocket" -a $model/adapters/rocket -o "$tmp/folder.png" --no-parameters
draw -p "a rocket" -a $alone --adapter-alpha 8 -o "$tmp/alone.png" --no-parameters
that "the image of its folder" cmp "$tmp/folder.png" "$tmp/alone.png"
refuses 1 'is given, but nothing is unsaid' "$weft" explain $model -a $hatching --adapter-alpha 4
refuses 2 'adapter-scale is for an --adapter' "$weft" explain $model -c $word --adapter-scale 1
env ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" "$weft" merge -q $model -a $alone:1000 --adapter-scale 1e5 -o "$tmp/wild" 2>"$tmp/said"
that "a merged weight beyond its type is an error" test $? = 1 -a ! -e "$tmp/wild"
that "of one line beside the warning" test "$(wc -l <"$tmp/said")" = 2
that "that warns of the scale" grep -q '^weft: warning: alone: 106 of its 106 modules have a scale that no training gives' "$tmp/said"
that "and names the layer" grep -q '^weft: unet.*: its merged weight has the value .* which F16 does not hold: .* BF16 or F32' "$tmp/said"

# What a file is, its content tells; a file that is nothing to weft says why.
prints 'tokens .*A1111' "$weft" inspect tests/data/fixtures/ti_a1111.pt
prints '<teal>, also written teal: 1 vector of width 128' "$weft" inspect $word
prints 'cloneofsimo' "$weft" inspect tests/data/fixtures/cloneofsimo_list.pt
prints 'single file' "$weft" inspect $single --config $tiny/tiny-sdxl
prints 'inpainting' "$weft" inspect $tiny/tiny-inpaint
for file in tests/data/fixtures/* tests/data/families/* tests/data/concepts/* tests/data/torch/*; do
    "$weft" inspect $file >"$tmp/said" 2>"$tmp/err"
    case $? in
    0) [ -s "$tmp/said" ] && [ ! -s "$tmp/err" ] ;;
    1) [ -s "$tmp/said" ] && [ ! -s "$tmp/err" ] || { [ "$(wc -l <"$tmp/err")" = 1 ] && grep -q "^weft: .*$(basename $file)" "$tmp/err"; } ;;
    *) false ;;
    esac && passed || failed "inspect $file says nothing, or ends badly"
done

# ---- options in all their forms

draw -p x -o "$tmp/form.png" --no-parameters
for form in "-s3 -g3 -o$tmp/x.png" "-qs3 --guidance=3 -o $tmp/x.png" "--steps=3 -g 3 --output $tmp/x.png"; do
    rm -f "$tmp/x.png"
    "$weft" generate $form -p x -q --no-parameters -- $model
    that "the image of $form" cmp "$tmp/form.png" "$tmp/x.png"
done
cp $monster "$tmp/-odd.safetensors"
that "a name that begins with a dash" sh -c "cd $tmp && $(realpath "$weft") inspect -k -- -odd.safetensors"
# Options of an adapter are of the one before them, and adapters keep their order.
"$weft" explain $model -a $monster:2 --role style --concept $word -a$hatching:3 --role=content --compose klora >"$tmp/said"
that "explained" test -s "$tmp/said"
that "the first adapter is the style" grep -q 'style.*monster\|monster.*style' "$tmp/said"
that "the second is the content" grep -q 'content.*hatching\|hatching.*content' "$tmp/said"

# ---- wrong command lines: status 2

refuses 2 'which subcommand' "$weft"
refuses 2 "no subcommand 'draw'" "$weft" draw
refuses 2 'which model' "$weft" generate
refuses 2 'what shall be drawn' "$weft" generate $model
refuses 2 'no option --stops' "$weft" generate $model --stops 3
refuses 2 'no option -z' "$weft" generate $model -qz
refuses 2 'no option -k' "$weft" generate $model -k
refuses 2 '--st could be --st[a-z]*, and others' "$weft" generate $model --st 3
refuses 2 'wants a value: --steps N' "$weft" generate $model --steps
refuses 2 'wants a value: --steps N' "$weft" generate $model -qs
refuses 2 "'3x' is not a number" "$weft" generate $model -s3x
refuses 2 'one name too many' "$weft" generate $model -- --steps
refuses 2 "'three' is not a number" "$weft" generate $model --steps three
refuses 2 'not between' "$weft" generate $model --steps 0
refuses 2 'not a whole number' "$weft" generate $model --steps 2.5
refuses 2 'takes no value' "$weft" generate $model --karras=1
refuses 2 'one name too many' "$weft" generate $model other
refuses 2 "no 'klara'" "$weft" generate $model --compose klara
refuses 2 "'heavy' is not a weight" "$weft" generate $model -p x -a $monster:heavy
refuses 2 'not a weight' "$weft" generate $model -p x -a $monster:nan
refuses 2 'none' "$weft" generate $model -p x --role style
refuses 2 'period is of switch' "$weft" generate $model -p x -a $monster --period 3
refuses 2 'period is of switch' "$weft" generate $model -p x $two --compose switch --phase 2 --period 3
refuses 2 'share is of composite' "$weft" generate $model -p x $two --share 2 --compose switch --phase 2
refuses 2 'by-share is of switch' "$weft" generate $model -p x $two --by-share
refuses 2 'last-to is about the calls of --last' "$weft" generate $model -p x $two --compose switch --last-to B
refuses 2 "'AB' is not a list of turns" "$weft" generate $model -p x $two --compose switch --turns AB
refuses 2 "'b' is not an adapter like A or B" "$weft" generate $model -p x $two --compose switch --last 1 --last-to b
refuses 1 'turn 1 is of adapter 2, the plan has 2' "$weft" explain $model $two --compose switch --turns A,C
refuses 2 'c1 and --c2 are of --cached' "$weft" generate $model -p x $two --compose composite --c2 2
refuses 2 'measure is of --cached' "$weft" generate $model -p x $two --compose composite --measure
refuses 2 'keep is of loratorio or subbands' "$weft" generate $model -p x $two --keep 1
refuses 2 'patch is of loratorio' "$weft" generate $model -p x $two --compose subbands --patch 2
refuses 1 'loratorio: the share of .* is -1, wanted 0 or more' "$weft" explain $model $two --share -1 --compose loratorio
refuses 2 'at call 0 several adapters act at once' "$weft" generate $model -p x $two --text-plan each -o "$tmp/x.png"
refuses 2 'each is of prompts' "$weft" generate $model $two --text-plan each --conditioning "$tmp/base.safetensors"
# ---- K-LoRA of many, by energy, fixed; balanced weights

mosaic=$model/adapters/mosaic.safetensors
many="-a $monster --role content -a $hatching --role style -a $mosaic --role style"
prints '^  styles +B, C$' "$weft" explain $model $many --compose klora
prints 'C:[0-9]' "$weft" explain $model $many --compose klora --pattern s --score energy
prints 'Frobenius norms' "$weft" explain $model $two --compose klora --score energy
prints ' -  +-  +C12 S8$' "$weft" explain $model $two --compose klora --pattern fixed --fixed-share 0.6
prints '^  balance    weights in the UNet, to A:$' "$weft" explain $model $two --balance
prints '^ +A times 1\.[0-9]+, ratio of the sums over [0-9]+ layers$' "$weft" explain $model -a $monster --role content \
    -a $hatching --role style --balance --balance-to style --balance-by paper
that "balanced" draw -p "a zib monster" $two --balance -o "$tmp/balanced.png" --no-parameters
draw -p "a zib monster" $two --balance --balance-by paper -o "$tmp/x.png"
that "said in the parameters" hold "$tmp/x.png" "Balance: paper, Adapters"
draw -p "a zib monster" $two -o "$tmp/x.png" --no-parameters
that "another image than without" test "$(cksum <"$tmp/balanced.png")" != "$(cksum <"$tmp/x.png")"
that "a balanced merge" "$weft" merge $model $two --balance -q -o "$tmp/balanced_model"
# The balance of a merge is that which explain tells: the same adapter comes of it by hand.
factor=$("$weft" explain $model $two --balance | sed -n 's/^ *B times \([0-9.]*\),.*/\1/p')
that "a balanced adapter" "$weft" merge $model $two --balance -q --into adapter -o "$tmp/balanced.safetensors"
"$weft" merge $model -a $monster -a $hatching:$factor -q --into adapter -o "$tmp/by_hand.safetensors"
prints '^  all +[0-9]+ +0 +0 +([0-9.]+) +\1 +1\.000 ' "$weft" conflicts $model -a "$tmp/balanced.safetensors" -a "$tmp/by_hand.safetensors"
refuses 2 'balance needs two adapters' "$weft" explain $model -a $monster --balance
refuses 2 'balance-by is of --balance' "$weft" explain $model $two --balance-by paper
refuses 2 'fixed-share is of --pattern fixed' "$weft" explain $model $two --compose klora --fixed-share 0.5
refuses 2 'scores nothing: not with --gamma' "$weft" explain $model $two --compose klora --pattern fixed --gamma paper
refuses 2 'top-k is of --score topk' "$weft" explain $model $two --compose klora --score energy --top-k 4
refuses 1 'no adapter has the role style' "$weft" explain $model $two --balance --balance-to style
refuses 1 'each needs a role' "$weft" explain $model $two -a $model/adapters/rocket --compose klora

# ---- explain in numbers, traces

prints '^  [0-9]+ side: the adapters. products are at most an eighth of the layer.s$' "$weft" explain $model $two
# The first call makes the text's keys and values, which are kept.
prints '^  0 +1 +1\.[0-9]+ +0\.[0-9]+ +[0-9.]+ MB  A 1\.000 B 1\.000$' "$weft" explain $model $two
prints '^  1-19 +1 +1\.[0-9]+ +0\.[0-9]+ +[0-9.]+ MB  A 1\.000 B 1\.000$' "$weft" explain $model $two
prints '^  1 +2,  1 reuse' "$weft" explain $model $two --compose composite --cached
prints '"reason": "calls"' "$weft" explain $model $two --compose klora --json
prints '"strength": \[1, 0\]' "$weft" explain $model $two --compose switch --json
that "JSON alone on the output" test "$("$weft" explain $model $two --json | head -c 1)" = "{"
that "a drawing of it all" "$weft" explain $model $two --blocks OUTALL --curve 0=0,4=1 -q -o "$tmp/explain.png"
draw -p "a zib monster" $two --compose composite --cached -s 4 --trace "$tmp/trace.json" -o "$tmp/traced.png" --no-parameters
that "a call that reused" grep -q '"reused": true' "$tmp/trace.json"
that "shares of two" grep -q '"share": 0.5' "$tmp/trace.json"
draw -p "a zib monster" $two --compose composite --cached -s 4 --trace "$tmp/trace.png" -o "$tmp/x.png" --no-parameters
that "a trace changes nothing" cmp -s "$tmp/traced.png" "$tmp/x.png"
draw -p "a zib monster" $two --compose composite --cached -s 4 -o "$tmp/x.png" --no-parameters
that "nor does none" cmp -s "$tmp/traced.png" "$tmp/x.png"
that "a picture of a trace" hold "$tmp/trace.png" PNG
refuses 2 'name it so' "$weft" generate $model -p x --trace "$tmp/trace.txt"
refuses 1 'cannot write' "$weft" generate $model -p x --trace "$tmp/nowhere/trace.png"

# ---- scales of what has no alpha

families=tests/data/families
prints 'lora, rank 2, scale 1 \(the file has no alpha\)$' "$weft" inspect $families/edlora.pth
prints 'vera, rank 6, scale 1 \(the file has no alpha\)$' "$weft" inspect $families/peft_vera
prints 'fourierft, scale 30 \(the family.s own\)$' "$weft" inspect $families/peft_fourierft
prints 'oft, scale 1 \(its alpha is no part of it\)$' "$weft" inspect $families/kohya_oft.safetensors

# ---- conflicts

loud="-a $monster:4 --role content -a $hatching --role style"
prints '^  down\.1 +12 +2 +0 ' "$weft" conflicts $model $two
prints 'A \(monster\) and B \(hatching\) can be summed$' "$weft" conflicts $model $two
prints '^  the content A .*drowns the style B .*in up.1: [34]\.[0-9] times its norm; lower its weight$' \
    "$weft" conflicts $model $loud
prints '^  all .* 24\.[0-9]+ +20\.' "$weft" conflicts $model $two --role style --balance --balance-to style
prints '"pair": \[0, 1\], "layer": "unet\.[^"]*", "norms": \[[0-9.]+, [0-9.]+\], "cosine": -?0\.[0-9]+, "clash"' \
    "$weft" conflicts $model $two --json
prints '"verdict": "first drowns", "words": "the content A' "$weft" conflicts $model $loud --json
that "a picture of conflicts" "$weft" conflicts $model $two -q -o "$tmp/conflicts.png"
that "it is a PNG" hold "$tmp/conflicts.png" PNG
refuses 2 'two --adapter' "$weft" conflicts $model -a $monster
refuses 2 'conflicts.jpg: what is written is a .png file' "$weft" conflicts $model $two -o "$tmp/conflicts.jpg"

refuses 2 'alpha, --beta and --modulus' "$weft" generate $model -p x $two --phase 2 --compose klora --beta 1
refuses 2 'pattern custom needs' "$weft" generate $model -p x $two --compose klora --alpha 1 --beta 1 \
    --pattern custom --phase 3 --compose klora --pattern custom
refuses 2 'phase needs an --adapter' "$weft" generate $model -p x --phase 2
refuses 2 'not between 0 and 1' "$weft" generate $model -p x $two --phase 1.5
refuses 2 'not between 1 and' "$weft" generate $model -p x $two --phase 0
refuses 1 'phase is 2, the phase before begins at call 3' "$weft" explain $model $two --phase 3 --phase 2
refuses 2 'of --pattern custom' "$weft" generate $model -p x -a $monster -a $hatching --compose klora --beta 1
refuses 2 'eta is of --sampler ddim or tcd' "$weft" generate $model -p x --sampler euler --eta 0.5
refuses 2 'not for --sampler ddim' "$weft" generate $model -p x --karras
refuses 2 '\-\-schedule is not for --sampler ddim' "$weft" generate $model -p x --schedule simple
refuses 2 'nearest names are dpmpp_2s' "$weft" generate $model -p x --sampler 'DPM++ 2S a'
refuses 2 "'karras' is a schedule" "$weft" generate $model -p x --sampler karras
refuses 2 "no 'turbo', only default, karras" "$weft" generate $model -p x --schedule turbo
refuses 2 "no 'euler', only default" "$weft" generate $model -p x --schedule euler
refuses 2 'karras is not for --schedule beta' "$weft" generate $model -p x --sampler euler --karras --schedule beta
refuses 2 'not with --schedule' "$weft" generate $model -p x --sampler euler --schedule beta --sigmas 3,1
refuses 2 'sigma-max is not for --sampler ddim' "$weft" generate $model -p x --sigma-max 9
refuses 2 'not for --sampler lcm' "$weft" generate $model -p x --sampler lcm --sigmas 3,1
refuses 2 'not with --steps' "$weft" generate $model -p x --sampler euler --sigmas 3,1 --steps 2
refuses 2 'not a list of noise levels' "$weft" generate $model -p x --sampler euler --sigmas 3,,1
refuses 2 'about the image of --image' "$weft" generate $model -p x --strength 0.5
refuses 2 'is for a --concept' "$weft" generate $model -p x -a $monster --tokens '<x>'
refuses 2 'not a size' "$weft" generate $model -p x --size 64
refuses 2 'multiples of' "$weft" generate $model -p x --size 63x64
refuses 2 'not a whole number' "$weft" generate $model -p x --seed -1
refuses 2 'stands in for' "$weft" generate $model -p x --conditioning "$tmp/base.safetensors"
refuses 2 'no effect without guidance' "$weft" generate $model -p x -n y --guidance 1

# ---- numbers that are not finite: nothing is drawn

mkdir "$tmp/broken" && cp -r $model/* "$tmp/broken"
chmod -R u+w "$tmp/broken"
weights=$tmp/broken/unet/diffusion_pytorch_model.safetensors
data=$((8 + $(od -An -tu8 -N8 "$weights")))                # conv_in.bias, which is F16, begins the data
printf '\000\174' | dd of="$weights" bs=1 seek=$data conv=notrunc 2>/dev/null # an infinity
refuses 1 'not finite: it began in unet.conv_in: a bias of the model' "$weft" generate "$tmp/broken" -q $few -p x \
    -o "$tmp/broken.png" --save "$tmp/broken.safetensors"
that "no picture" test ! -e "$tmp/broken.png" -a ! -e "$tmp/broken.safetensors"
that "unless it is asked for" "$weft" generate "$tmp/broken" -q $few -p x -o "$tmp/broken.png" --unchecked
rm -r "$tmp/broken"

# ---- mapped or copied: which of the model's files does the process map while it draws?

maps() {
    "$weft" generate $model -q -p x -s 40 -g 1 -o "$tmp/maps.png" "$@" & drawing=$!
    seen=no
    while kill -0 $drawing 2>/dev/null; do
        grep -qs diffusion_pytorch_model.safetensors /proc/$drawing/maps && seen=yes
    done
    wait $drawing && [ $seen = "$wanted" ]
}
if [ -r /proc/self/maps ]; then
    wanted=yes that "weights are mapped" maps --map
    wanted=no that "or copied" maps --copy
fi
refuses 2 'which of the two' "$weft" inspect $model --copy --map

# ---- under a limit on addresses the tool ends, with a picture or a line

if (ulimit -v 120000) 2>/dev/null && ! LC_ALL=C grep -aq __asan_init "$B/libweft.so"; then
    under='ulimit -v "$1"; shift; exec timeout 60 "$@"'
    refuses 1 'out of memory' sh -c "$under" sh 120000 "$weft" generate $model -q $few -p x -t 1 -o "$tmp/limited.png"
    that "help" sh -c "$under" sh 120000 "$weft" --help
    that "room for one work area" sh -c "$under" sh 400000 "$weft" generate $model -q $few -p x -t 1 \
        -o "$tmp/limited.png"
fi

# ---- wrong files: status 1

refuses 1 'nowhere' "$weft" generate nowhere -p x
refuses 1 '' "$weft" generate tests -p x -o "$tmp/x.png"
refuses 1 'nothing.safetensors' "$weft" generate $model -p x -a "$tmp/nothing.safetensors"
refuses 1 '' "$weft" generate $model -p x -a README.md
refuses 1 'two adapters' "$weft" generate $model -p x -a $monster --compose klora -o "$tmp/x.png"
refuses 1 '' "$weft" generate $model -p x -o "$tmp/no/such/folder/x.png" $few -q
refuses 1 'start.*latents' "$weft" generate $model -p x --latents $monster
refuses 1 'text' "$weft" generate $model --conditioning $monster
refuses 1 'wanted (1, ' "$weft" generate $model -p x --size 48x64 --latents "$tmp/base.safetensors" -o "$tmp/x.png"
refuses 1 'nowhere' "$weft" inspect nowhere
refuses 1 '' "$weft" inspect README.md
env ASAN_OPTIONS=detect_leaks=0 "$weft" generate $model -p x -o "$tmp/made.png" --save "$tmp/no/such/folder/x" $few -q 2>/dev/null
that "a failed save is a failure" test $? = 1
total
