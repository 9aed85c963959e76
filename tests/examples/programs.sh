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

that "words" "$B/examples/words" $model "$tmp/words.png"
that "its image" test -s "$tmp/words.png"
"$B/examples/words" 2>/dev/null
that "words without arguments is a usage error" test $? = 2

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

# The first block of C in the README, as a reader would compile it.
awk '/^```c$/ { on = 1; next } /^```$/ { if (on) exit } on' README.md >"$tmp/readme.c"
that "the README's program compiles" ${CC:-cc} ${CFLAGS:-} -std=c11 -Wall -Wextra -Werror -Iinclude "$tmp/readme.c" \
    -o "$tmp/readme" -L"$B" -lweft -Wl,-rpath,"$(cd "$B" && pwd)"
that "and runs" "$tmp/readme"
total
