#!/bin/sh
# The other examples run, and so does the program in the README.
set -u
. tests/examples/expect

that "denoise" "$B/examples/denoise" $model "a red circle on a blue background" "$tmp/denoise.png"
that "its image" test -s "$tmp/denoise.png"
"$B/examples/denoise" 2>/dev/null
that "denoise without arguments is a usage error" test $? = 2

that "img2img" "$B/examples/img2img" $model "a yellow star" "$tmp/denoise.png" "$tmp/star.png" 0.6
that "its image" test -s "$tmp/star.png"
that "img2img with a mask" "$B/examples/img2img" $model "a yellow star" "$tmp/denoise.png" "$tmp/hole.png" 1 "$tmp/star.png"
that "its image" test -s "$tmp/hole.png"
"$B/examples/img2img" 2>/dev/null
that "img2img without arguments is a usage error" test $? = 2
"$B/examples/img2img" $model "a yellow star" "$tmp/denoise.png" "$tmp/none.png" 7 2>/dev/null
that "a strength of 7 is refused" test $? = 1

tiny=tests/data/models/tiny-sd1 ip=tests/data/image_prompts
image_prompt="$B/examples/image_prompt $tiny $ip"
that "image_prompt" $image_prompt/plus_sd1.safetensors $ip/encoder "$tmp/denoise.png" "a cat" "$tmp/seen.png" 0.8
that "its image" test -s "$tmp/seen.png"
that "image_prompt without weight" $image_prompt/plus_sd1.safetensors $ip/encoder "$tmp/denoise.png" "a cat" "$tmp/unseen.png" 0
that "which is another" test "$(cksum <"$tmp/seen.png")" != "$(cksum <"$tmp/unseen.png")"
"$B/examples/denoise" $tiny "a cat" "$tmp/plain.png" >/dev/null
that "and the one without a picture" cmp "$tmp/plain.png" "$tmp/unseen.png"
that "image_prompt in no block" $image_prompt/plus_sd1.safetensors $ip/encoder "$tmp/denoise.png" "a cat" "$tmp/unseen.png" 1 NONE
that "is that too" cmp "$tmp/plain.png" "$tmp/unseen.png"
$image_prompt/base_sdxl.safetensors $ip/encoder "$tmp/denoise.png" "a cat" "$tmp/none.png" 2>/dev/null
that "an IP-Adapter for another model is refused" test $? = 1
"$B/examples/image_prompt" 2>/dev/null
that "image_prompt without arguments is a usage error" test $? = 2

that "words" "$B/examples/words" $model "$tmp/words.png"
that "its image" test -s "$tmp/words.png"
"$B/examples/words" 2>/dev/null
that "words without arguments is a usage error" test $? = 2

prints '14 of 20 calls read the second text' "$B/examples/delayed" $model $model/adapters/monster.safetensors "a circle on a red background" 0.3 \
    "a zib monster on a red background" "$tmp/delayed.png"
that "its image" test -s "$tmp/delayed.png"
"$B/examples/delayed" 2>/dev/null
that "delayed without arguments is a usage error" test $? = 2
"$B/examples/delayed" $model $model/adapters/monster.safetensors a 3 b "$tmp/none.png" 2>/dev/null
that "a share of 3 is refused" test $? = 2

that "aligned" "$B/examples/aligned" $model "$tmp/denoise.png" "a red circle" "$tmp/aligned" "a blue star" "a green heart"
that "its images" test -s "$tmp/aligned-1.png" -a -s "$tmp/aligned-2.png"
"$B/examples/aligned" 2>/dev/null
that "aligned without arguments is a usage error" test $? = 2

that "merge" "$B/examples/merge" $model "$tmp/merged.safetensors" $model/adapters/monster.safetensors 1 \
    $model/adapters/hatching.safetensors 0.7
that "its adapter fits the model" "$B/examples/weft" inspect "$tmp/merged.safetensors" --model $model
"$B/examples/merge" 2>/dev/null
that "merge without arguments is a usage error" test $? = 2

that "fuse" "$B/examples/fuse" $model "$tmp/fused.png"
that "its image" test -s "$tmp/fused.png"
"$B/examples/fuse" 2>/dev/null
that "fuse without arguments is a usage error" test $? = 2

"$B/examples/compose" --model $model --out "$tmp/deep/demo" >"$tmp/out.compose"
that "compose" test $? = 0
for name in base monster rocket hatching mosaic monster-hatching-merge monster-hatching-switch \
            monster-hatching-composite monster-hatching-klora contact-sheet klora-table; do
    that "compose's $name" test -s "$tmp/deep/demo/$name.png"
    that "compose says where $name is" grep -q "$tmp/deep/demo/$name.png" "$tmp/out.compose"
done
"$B/examples/compose" --what 2>/dev/null
that "compose with an unknown option is a usage error" test $? = 2

monster=$model/adapters/monster.safetensors hatching=$model/adapters/hatching.safetensors
pair="a large zib monster on a red background, hatched style"
mkdir "$tmp/drawn"
prints "^composite .*2 evaluations" "$B/examples/predictions" $model $monster $hatching "$pair" "$tmp/drawn"
for name in merge switch composite loratorio subbands; do that "its $name" test -s "$tmp/drawn/$name.png"; done
"$B/examples/klora" $model $monster $hatching "$pair" "$tmp/drawn/klora.png" >"$tmp/choices"
that "klora" test $? = 0
that "its baseline has no blocks" test "$(awk '/ of .* layers/ { print $6 }' "$tmp/choices" | sort -u)" = 35
that "its choice has" test "$(awk '/ of .* layers/ { print $2 }' "$tmp/choices" | sort -u | wc -l)" -gt 3
that "its image" test -s "$tmp/drawn/klora.png"
"$B/examples/zip" $model $monster $hatching "$pair" "$tmp/drawn" >"$tmp/folded"
that "a folded plan draws the same" test "$(grep -c 'at most [01] of 255' "$tmp/folded")" = 3
that "its file fits the model" "$B/examples/weft" inspect "$tmp/drawn/zip.safetensors" --model $model
prints "^blend  .*60 evaluations" "$B/examples/regions" $model $monster "a zib monster on a blue background" $model/adapters/rocket \
    "a large vok rocket on a blue background" "a blue background" "$tmp/drawn"
for name in one-pass blend blend-then-one-pass; do that "its $name" test -s "$tmp/drawn/$name.png"; done
that "schedule" "$B/examples/schedule" $model $monster $hatching "$pair" "$tmp/drawn"
that "a style that comes in late is another picture" sh -c "! cmp -s '$tmp/drawn/whole.png' '$tmp/drawn/from-three-quarters.png'"
that "sheet" "$B/examples/sheet" "$tmp/sheet.png" 2 2 "$tmp/drawn/whole.png" whole "$tmp/drawn/klora.png" "K-LoRA" \
    "$tmp/drawn/blend.png" "a label that is too long for its cell"
that "its image" test -s "$tmp/sheet.png"
for name in predictions klora zip regions schedule sheet; do
    "$B/examples/$name" 2>/dev/null
    that "$name without arguments is a usage error" test $? = 2
done
"$B/examples/sheet" "$tmp/none.png" 0 2 "$tmp/sheet.png" none 2>/dev/null
that "a sheet of zoom 0 is a usage error" test $? = 2
"$B/examples/klora" $model $monster "$tmp/nothing.safetensors" "$pair" "$tmp/none.png" 2>/dev/null
that "an adapter that is not there is refused" test $? = 1

# The first block of C in the README, as a reader would compile it.
awk '/^```c$/ { on = 1; next } /^```$/ { if (on) exit } on' README.md >"$tmp/readme.c"
that "the README's program compiles" ${CC:-cc} ${CFLAGS:-} -std=c11 -Wall -Wextra -Werror -Iinclude "$tmp/readme.c" \
    -o "$tmp/readme" -L"$B" -lweft -Wl,-rpath,"$(cd "$B" && pwd)"
that "and runs" "$tmp/readme"
total
