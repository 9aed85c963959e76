#!/bin/sh
# What the tool says of the files that people give it by mistake, and of names that it writes to: one line that says
# what was found and what to do, in the words of the command line.
set -u
. tests/examples/expect

few="-q --steps 2 --guidance 1 --no-parameters"
draw() { "$weft" generate $model $few "$@"; }
monster=$model/adapters/monster.safetensors

# ---- downloads that are something else

printf 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n' >"$tmp/lfs"
printf '\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>' >"$tmp/page"
printf '{"error":"Unauthorized"}' >"$tmp/answer"
printf 'Access to this model is restricted.' >"$tmp/text"
printf '\377\330\377\340\0\020JFIF\0\001' >"$tmp/jpeg"
printf 'RIFF\20\0\0\0WEBPVP8 ' >"$tmp/webp"
printf 'GGUF\3\0\0\0' >"$tmp/gguf"
gzip -c "$monster" >"$tmp/gzip"
head -c 3000 "$monster" >"$tmp/header"
head -c 200000 "$monster" >"$tmp/data"

of_file() {
    refuses 1 "$2" "$weft" inspect "$tmp/$1"
    refuses 1 "$2" "$weft" generate "$tmp/$1" -p x
    refuses 1 "$2" "$weft" generate $model -p x -a "$tmp/$1"
    refuses 1 "$2" "$weft" generate $model -p x -c "$tmp/$1"
}
of_file lfs "a Git LFS pointer.*git lfs pull"
of_file page 'a web page'
of_file answer 'begins "{"error":"Unauthorized"}"'
of_file text 'begins "Access to this model'
of_file gguf 'a GGUF file'
of_file gzip 'compressed with gzip: unpack it'
of_file header 'is it cut short?'
of_file data 'is the file cut short?'
refuses 1 "not a JPEG that can be read" "$weft" generate $model -p x -i "$tmp/jpeg"
for file in lfs:LFS page:'web page' webp:WebP; do
    refuses 1 "not a PNG or a JPEG: it is a.*${file#*:}" "$weft" generate $model -p x -i "$tmp/${file%%:*}"
done
printf '\357\273\277<!doctype html>\n<html></html>' >"$tmp/marked"
printf '{\n  "error": "Entry not found"\n}\n' >"$tmp/lines"
of_file marked 'a web page'
of_file lines 'begins "{ "error": "Entry not found" }"'
cp -r $model "$tmp/model"
cp $model/unet/config.json "$tmp/model/scheduler/scheduler_config.json"
refuses 1 "not a scheduler's configuration: _class_name is UNet2DConditionModel" "$weft" generate "$tmp/model" -p x
cp "$tmp/answer" "$tmp/model/scheduler/scheduler_config.json"
refuses 1 "not a scheduler's configuration: _class_name is absent" "$weft" generate "$tmp/model" -p x
cp $model/scheduler/scheduler_config.json "$tmp/model/scheduler/scheduler_config.json"
for file in unet/config.json model_index.json tokenizer/vocab.json tokenizer/merges.txt scheduler/scheduler_config.json; do
    cp "$tmp/lfs" "$tmp/model/$file"
    refuses 1 "$(basename $file).*a Git LFS pointer" "$weft" generate "$tmp/model" -p x
    cp $model/$file "$tmp/model/$file"
done

# ---- arithmetic

refuses 2 '--emulate is of --arithmetic bf16' "$weft" generate $model -p x --emulate
refuses 2 "'f16', only f32 or bf16" "$weft" generate $model -p x --arithmetic f16

# ---- one thing in the place of another

refuses 1 'an adapter.*: give it with --adapter' "$weft" generate "$monster" -p x
refuses 1 'an adapter: give it with --adapter' "$weft" generate $model/adapters/rocket -p x
refuses 1 'textual inversion: give it with --concept' "$weft" generate $model/words/teal.safetensors -p x
refuses 1 'textual inversion: give it with --concept' "$weft" generate $model -p x -a $model/words/teal.safetensors
refuses 1 'a diffusers UNet, one part of a model' "$weft" generate $model/unet/diffusion_pytorch_model.safetensors -p x
refuses 1 'a text encoder, one part' "$weft" generate $model/text_encoder/model.safetensors -p x
refuses 1 'of a VAE, .* --vae' "$weft" generate $model/vae/diffusion_pytorch_model.safetensors -p x
refuses 1 'a part of one' "$weft" generate $model/unet -p x
refuses 1 "a model's folder.* give it as MODEL" "$weft" generate $model -p x -a $model
for part in unet/diffusion_pytorch_model vae/diffusion_pytorch_model text_encoder/model; do
    refuses 1 'of a part of a model' "$weft" generate $model -p x -a $model/$part.safetensors
done
refuses 1 'of a checkpoint.* give it as MODEL' "$weft" generate $model -p x -a tests/data/layouts/tiny-sdxl.safetensors

# tensor NAME: a file with this one tensor.
tensor() {
    header="{\"$1\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
    printf "\\$(printf %o ${#header})\0\0\0\0\0\0\0%s\0\0\0\0" "$header" >"$tmp/one.safetensors"
}
while read -r name says; do
    tensor "$name"
    refuses 1 "$says" "$weft" generate "$tmp/one.safetensors" -p x
done <<'NAMES'
scaled_fp8 float8
model.diffusion_model.out.2.scale_weight float8
model.diffusion_model.out.2.weight.absmax quantised
edm_vpred.sigma_max EDM
controlnet_cond_embedding.conv_in.weight ControlNet
control_model.input_hint_block.0.weight ControlNet
image_proj.latents IP-Adapter
down_blocks.0.motion_modules.0.proj_in.weight video
double_blocks.0.img_attn.qkv.weight FLUX
vision_model.embeddings.class_embedding image.encoder
encoder.block.0.layer.0.SelfAttention.q.weight T5
model.0.sub.1.conv.weight upscaler
NAMES

# Pictures as prompts: what belongs where.
ip=tests/data/image_prompts
tiny="$weft generate tests/data/models/tiny-sd1 -p x -o $tmp/x.png"
png=examples/model/missing.png
refuses 1 'IP-Adapter; .* give it with --ip-adapter' "$weft" generate $model -p x -a $ip/base_sd1.safetensors
refuses 1 'IP-Adapter: give it with --ip-adapter' "$weft" generate $ip/base_sd1.safetensors -p x
refuses 1 'base_sdxl is for a model with 17 cross-attentions over rows of 40; this one (SD1.x) has 11 over rows of 24' \
    $tiny --ip-adapter $ip/base_sdxl.safetensors --image-prompt $png --image-encoder $ip/encoder
refuses 1 'not an IP-Adapter: it has no tensor image_proj' $tiny --ip-adapter "$monster" --image-prompt $png --image-encoder $ip/encoder
refuses 1 'missing.png' $tiny --ip-adapter $ip/base_sd1.bin --image-prompt $png --image-encoder $ip/encoder
refuses 1 'model_type is "clip_text_model"' $tiny --ip-adapter $ip/base_sd1.bin --image-prompt $png --image-encoder $model/text_encoder
refuses 1 'reads a pooled vector of 24, the image encoder gives 12' $tiny --ip-adapter $ip/base_sd1.bin --image-prompt docs/images/words.png \
    --image-encoder $ip/encoder_quick
refuses 1 'block weights: 3 numbers' $tiny --ip-adapter $ip/base_sd1.bin --image-prompt $png --image-encoder $ip/encoder --image-prompt-blocks 1,2,3
refuses 2 'which picture' $tiny --ip-adapter $ip/base_sd1.bin --image-encoder $ip/encoder
refuses 2 'needs CLIP.s image encoder' $tiny --ip-adapter $ip/base_sd1.bin --image-prompt $png
refuses 2 'for the --ip-adapter before it' $tiny --image-prompt $png
refuses 2 'of --ip-adapter, and there is none' $tiny --image-encoder $ip/encoder
refuses 2 'is not a weight' $tiny --ip-adapter $ip/base_sd1.bin:x

# The adapter of a folder, moved alone: one line, whoever is asked.
cp $model/adapters/rocket/unet/adapter_model.safetensors "$tmp/alone.safetensors" 2>/dev/null ||
    cp $model/adapters/rocket/adapter_model.safetensors "$tmp/alone.safetensors"
refuses 1 'nothing says its alpha.* give --adapter-alpha' "$weft" inspect "$tmp/alone.safetensors"
refuses 2 '0 leaves nothing' "$weft" generate $model -p x -a "$tmp/alone.safetensors" --adapter-scale 0
that "old diffusers' files need no alpha" draw -p x -a $model/adapters/mosaic.safetensors -o "$tmp/x.png"
that "and nothing is said" test ! -s "$tmp/err"
refuses 2 'one or the other' "$weft" generate $model -p x --epsilon --v-prediction

for order in "--schedule exponential --sampler Euler_Karras" "--sampler Euler_Karras --schedule exponential"; do
    draw -p x $order -o "$tmp/x.png" --steps 3 && cp "$tmp/x.png" "$tmp/$(echo "$order" | cut -c3-5).png"
done
that "--schedule says more than a sampler's name" cmp "$tmp/sch.png" "$tmp/sam.png"

# ---- a model without a VAE


tr '\n' ' ' <$model/model_index.json | sed 's/"vae": *\[[^]]*\]/"vae": [null, null]/' \
    >"$tmp/model/model_index.json"
mv "$tmp/model/vae" "$tmp/vae"
cp "$tmp/model/model_index.json" "$tmp/index"
cp $model/model_index.json "$tmp/model/model_index.json"
refuses 1 'no weights.* given with --vae' "$weft" generate "$tmp/model" -p x
cp "$tmp/index" "$tmp/model/model_index.json"
refuses 1 'no VAE.* give one with --vae' "$weft" generate "$tmp/model" -p x
that "with one" "$weft" generate "$tmp/model" --vae $model/vae $few -p "a red circle" -o "$tmp/x.png"
draw -p "a red circle" -o "$tmp/y.png"
that "it is the same picture" cmp "$tmp/x.png" "$tmp/y.png"

# ---- names to write to

printf 'old' >"$tmp/real.png"
ln -s real.png "$tmp/link.png"
draw -p "a red circle" -o "$tmp/link.png"
that "a link stays a link" test -L "$tmp/link.png"
that "and its file is written" cmp "$tmp/real.png" "$tmp/y.png"
for name in x.jpg x.jpeg x.webp x.safetensors X.JPG; do
    refuses 2 'is a .png file' "$weft" generate $model $few -p x -o "$tmp/$name"
    that "nothing is written" test ! -e "$tmp/$name"
done
refuses 2 'is a .safetensors file' "$weft" generate $model $few -p x --save "$tmp/x.ckpt"
refuses 2 'is a .safetensors file' "$weft" convert $monster --model $model -o "$tmp/x.pt"
refuses 2 'is a .png file' "$weft" explain $model -a $monster -o "$tmp/x.jpg"
that "a name without an ending" draw -p x -o "$tmp/picture"
mkdir "$tmp/full"
refuses 1 'File too large' sh -c "ulimit -f 1; exec '$weft' generate $model $few -p x -o '$tmp/full/x.png'"
that "nothing is left" test -z "$(ls -A "$tmp/full")"

# ---- no names of C

refuses 1 'strength 0 of 2 steps leaves none' "$weft" generate $model $few -p x -i "$tmp/y.png" --strength 0 -o "$tmp/z.png"
refuses 2 'not between' "$weft" generate $model $few -p x -i "$tmp/y.png" --strength 1.5
for words in "-a $monster --replace" "-a $monster -a $monster --compose klora --top-k -1" "--sampler ddpm --spacing trailing --steps 2000"; do
    env ASAN_OPTIONS=detect_leaks=0 "$weft" generate $model -q -p x $words -o "$tmp/z.png" 2>"$tmp/err"
    that "it fails: $words" test $? != 0
    if grep -q 'weft_\|WEFT_' "$tmp/err"; then failed "a name of C: $(cat "$tmp/err")"; else passed; fi
done
# Every field that a message of the library names is an option, or of what the tool never does.
for field in $(grep -rhoE '"[^"]*weft_(model|concept)_options\.[a-z_]+' lib | sed 's/.*_options\.//' | sort -u); do
    [ $field = flags ] && continue
    that "--$field is an option" grep -q -- "\"--$(echo $field | tr _ -)\"" examples/tool/options.c
done
total
