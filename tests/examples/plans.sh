#!/bin/sh
# Plans in files: a command line becomes a file, the file becomes the same image, byte for byte; what stands over
# what; and what is said of a file that is wrong.
set -u
. tests/examples/expect

cp $model/adapters/monster.safetensors $model/adapters/hatching.safetensors "$tmp"
few="--steps 4 --guidance 3"
draw() { "$weft" generate $model -q --no-parameters "$@"; }
hold() { LC_ALL=C grep -aqF -- "$2" "$1"; }

# ---- one file is one image

again() { # NAME ARGUMENTS: drawn with a plan that is saved, then from the plan alone
    name=$1; shift
    that "$name: drawn and saved" draw $few "$@" -o "$tmp/a.png" --save-plan "$tmp/plan.json"
    that "$name: drawn from the plan" draw --plan "$tmp/plan.json" -o "$tmp/b.png" --save-plan "$tmp/again.json"
    that "$name: the same image" cmp "$tmp/a.png" "$tmp/b.png"
    that "$name: the same plan" cmp "$tmp/plan.json" "$tmp/again.json"
}
M="-a $tmp/monster.safetensors" H="-a $tmp/hatching.safetensors"
again nothing -p "a house"
again merge -p "a monster" -n "a tree" --seed 7 $M:0.8 --blocks ALL0.5 $H:0.9 --curve 0.0=0,0.5=1 --curve-shape cosine
again switch -p "a monster" $M --share 2 $H --compose switch --period 1 --by-share --turns B,A,B --last 1 --last-to B
again composite -p "a monster" $M $H --compose composite --cached --c1 3
again klora -p "a monster" --sampler euler --karras $M $H --compose klora --pattern custom --alpha 1.1 --beta 0.3
again zip -p "a monster" $M $H --compose zip --lambda 0.4 --style-weight 0.7
again blora -p "a monster" $M $H --compose blora --squared
again loratorio -p "a monster" $M $H --compose loratorio --patch 2 --phase 2 --compose subbands --levels 1
again each -p "a monster" $M $H --compose switch --period 2 --text-plan each
again balance -p "a monster" $M $H --role style --balance --balance-to style
again concept -p "a house in teal" -c $model/words/teal.safetensors $M
again batch -p "a monster" -p "a house" --size 48x64 --prompt-from 2:"a tree" $M --align --adain-values
mask="$tmp/left.png"
draw $few -p "a white circle" -o "$mask"
again regions -p "a house" --region "$mask:a circle" $M --region "$mask:a monster" $H --compose blend --start 1
again image -p "a monster" $M --image "$mask" --strength 0.6 --mask "$mask"
again reference -p "a monster" $M --align --reference "$mask:a white circle" --reference-by noise
draw $few -p "a tree" -o "$tmp/tree.png" --save "$tmp/tree.safetensors"
again latents -p "a house" $M --latents "$tmp/tree.safetensors"

# ---- what the file says, and what stands over it

draw $few -p "a monster" $M:0.5 --save-plan "$tmp/plan.json" -o "$tmp/a.png"
that "the adapter beside it by its name" hold "$tmp/plan.json" '"file": "monster.safetensors"'
that "its hash is that of sha256sum" hold "$tmp/plan.json" "$(sha256sum "$tmp/monster.safetensors" | cut -d' ' -f1)"
draw $few -p "a house" --seed 3 $M:0.5 -o "$tmp/b.png"
draw --plan "$tmp/plan.json" -p "a house" --seed 3 -o "$tmp/c.png"
that "options stand over notes" cmp "$tmp/b.png" "$tmp/c.png"
draw -p "a house" --sampler euler --karras --steps 3 $M:0.5 --save-plan "$tmp/karras.json" -o "$tmp/b.png"
draw -p "a house" --steps 3 $M:0.5 -o "$tmp/b.png"
draw --plan "$tmp/karras.json" --sampler ddim -o "$tmp/c.png"
that "a solver stands over the settings of another" cmp "$tmp/b.png" "$tmp/c.png"
mkdir "$tmp/moved" && mv "$tmp/monster.safetensors" "$tmp/plan.json" "$tmp/moved"
draw --plan "$tmp/moved/plan.json" -o "$tmp/b.png"
that "a folder can be moved" cmp "$tmp/a.png" "$tmp/b.png"
mv "$tmp/moved/monster.safetensors" "$tmp/moved/plan.json" "$tmp"
"$weft" generate $model -q --plan "$tmp/plan.json" -o "$tmp/c.png"
that "the hash in the parameters" hold "$tmp/c.png" "Plan: $tmp/plan.json, Plan hash: "
"$weft" generate $model -q $few -p x $M --blocks MID=0.5 $H --compose zip --lambda 0.25 -o "$tmp/c.png"
that "blocks in the parameters" hold "$tmp/c.png" "monster.safetensors:1 blocks MID=0.5"
that "zip in the parameters" hold "$tmp/c.png" "Compose: zip, Zip lambda: 0.25"
"$weft" generate $model -q $few -p x $M $H --compose blora --content-blocks '*mid*' -o "$tmp/c.png"
that "blora in the parameters" hold "$tmp/c.png" 'B-LoRA content: "*mid*"'

# ---- files that are read besides: pictures

there() { (cd "$tmp/there" && "$@"); } # in another folder, which the paths do not begin at
at=$(cd "$(dirname "$weft")" && pwd)/weft models=$(cd $model && pwd)
mkdir "$tmp/here" "$tmp/there"
cp "$mask" "$tmp/here/a:b.png" && cp "$mask" "$tmp/here/mask.png"
draw $few -p "a monster" $M --image "$tmp/here/a:b.png" --mask "$tmp/here/mask.png" --save-plan "$tmp/here/plan.json" -o "$tmp/b.png"
that "the picture beside it by its name" hold "$tmp/here/plan.json" '"file": "a:b.png"'
that "its hash too" hold "$tmp/here/plan.json" "$(sha256sum "$mask" | cut -d' ' -f1)"
mv "$tmp/here" "$tmp/moved:here"
that "from another folder" there "$at" generate "$models" -q --no-parameters --plan "../moved:here/plan.json" -o ../c.png
that "pictures can be moved" cmp "$tmp/b.png" "$tmp/c.png"
cp "$tmp/tree.png" "$tmp/moved:here/other.png"
draw --plan "$tmp/moved:here/plan.json" --image "$tmp/moved:here/other.png" --save-plan "$tmp/moved:here/more.json" -o "$tmp/b.png"
that "a picture stands over that of the plan" hold "$tmp/moved:here/more.json" '"file": "other.png"'
draw --plan "$tmp/moved:here/more.json" -o "$tmp/c.png"
that "and is drawn again" cmp "$tmp/b.png" "$tmp/c.png"
that "explain keeps what it does not read" "$weft" explain $model --plan "$tmp/moved:here/more.json" --save-plan "$tmp/moved:here/kept.json"
draw --plan "$tmp/moved:here/kept.json" -o "$tmp/c.png"
that "and so is that" cmp "$tmp/b.png" "$tmp/c.png"
cp "$mask" "$tmp/moved:here/other.png" # the content of another picture
refuses 1 'notes.image: .*/other.png has another content: its hash is [0-9a-f]*\.\., the plan was made with' \
    "$weft" generate $model -q --plan "$tmp/moved:here/more.json" -o "$tmp/none.png"
rm "$tmp/moved:here/other.png"
refuses 1 'notes.image: .*/other.png: No such file' "$weft" generate $model -q --plan "$tmp/moved:here/more.json" -o "$tmp/none.png"
sed 's/"prompt": "a monster"/"prompt": {"file": "mask.png"}/' "$tmp/moved:here/plan.json" >"$tmp/moved:here/bad.json"
refuses 1 'notes.prompt is a file, weft generate expects a text' "$weft" generate $model -q --plan "$tmp/moved:here/bad.json" -o "$tmp/none.png"
draw $few -p "a monster" --align --reference "$mask:of a circle" --reference "$tmp/tree.png:a tree: green" $M \
    --save-plan "$tmp/reference.json" -o "$tmp/b.png"
that "what is in the reference" hold "$tmp/reference.json" '"reference-text": "a tree: green"'
mkdir "$tmp/c:d" && sed 's/"tree.png"/"..\/c:d\/tree.png"/; s/"monster.saf/"..\/monster.saf/' "$tmp/reference.json" >"$tmp/c:d/plan.json"
cp "$tmp/tree.png" "$tmp/c:d"
that "a reference below a colon" draw --plan "$tmp/c:d/plan.json" --save-plan "$tmp/c:d/again.json" -o "$tmp/c.png"
that "it is the same" cmp "$tmp/b.png" "$tmp/c.png"
draw --plan "$tmp/c:d/again.json" -o "$tmp/c.png"
that "and saved again" cmp "$tmp/b.png" "$tmp/c.png"
ip=$PWD/tests/data/image_prompts tiny="$PWD/tests/data/models/tiny-sd1 -q --no-parameters"
mkdir "$tmp/cats" && cp "$mask" "$tmp/cats/cat.png"
that "a picture as a prompt" "$weft" generate $tiny -s 2 -p "a cat" --ip-adapter "$ip/base_sd1.safetensors" \
    --image-prompt "$tmp/cats/cat.png" --image-encoder "$ip/encoder" --save-plan "$tmp/cats/plan.json" -o "$tmp/b.png"
mv "$tmp/cats" "$tmp/moved:cats"
that "found from another folder" there "$at" generate $tiny --plan "../moved:cats/plan.json" \
    --save-plan "../moved:cats/again.json" -o ../c.png
that "it is seen" cmp "$tmp/b.png" "$tmp/c.png"
that "the same notes" cmp "$tmp/moved:cats/plan.json" "$tmp/moved:cats/again.json"
cp "$tmp/tree.png" "$tmp/moved:cats/cat.png"
refuses 1 'notes.picture-0-0: .*/cat.png has another content' "$weft" generate $tiny --plan "$tmp/moved:cats/plan.json"
rm "$tmp/moved:cats/cat.png"
refuses 1 'notes.picture-0-0: .*/cat.png: No such file' "$weft" generate $tiny --plan "$tmp/moved:cats/plan.json"

prints "at 84|layers" "$weft" explain $model --plan "$tmp/plan.json"
prints "4 steps of ddim" "$weft" explain $model --plan "$tmp/plan.json"
that "explain saves too" "$weft" explain $model $M $H --save-plan "$tmp/two.json"
prints "pair|all" "$weft" conflicts $model --plan "$tmp/two.json"
that "a plan becomes an adapter" "$weft" merge $model -q --plan "$tmp/plan.json" --into adapter -o "$tmp/one.safetensors"
that "a plan becomes a model" "$weft" merge $model -q --plan "$tmp/plan.json" -o "$tmp/model"

sed -n '/^```json/,/^```/p' docs/formats.md | grep -v '^```' >"$tmp/page.json"
prints "K-LoRA, calls 0 to 9" "$weft" explain $model --plan "$tmp/page.json"

# ---- what is wrong

bad() { # STATUS-LINE SED-SCRIPT
    sed "$2" "$tmp/plan.json" >"$tmp/bad.json"
    refuses 1 "$1" "$weft" generate $model -q --plan "$tmp/bad.json" -o "$tmp/none.png"
    if [ -e "$tmp/none.png" ]; then failed "an image of a bad plan"; else passed; fi
}
bad 'bad.json: adapters\[0\].wight is a field that' 's/"weight"/"wight"/'
bad 'adapters\[0\].weight is "much", expected a number' 's/"weight": 0.5/"weight": "much"/'
bad 'has another content: its hash is [0-9a-f]*\.\., the plan was made with 0000' 's/"sha256": "....\([^"]*\)"/"sha256": "0000\1"/'
bad 'adapters\[0\]: .*none.safetensors: No such file' 's/monster.safetensors/none.safetensors/'
bad 'weft_plan is 2, expected 1' 's/"weft_plan": 1/"weft_plan": 2/'
bad 'phases\[0\].method is "mix"' 's/"method": "merge"/"method": "mix"/'
bad 'duplicate key "calls"' 's/"calls": 4/"calls": 4, "calls": 4/'
bad 'notes.promt: weft generate has no such option' 's/"prompt"/"promt"/'
bad 'made for another model' 's/"fingerprint": "..../"fingerprint": "0000/'
sed 's/"fingerprint": "..../"fingerprint": "0000/' "$tmp/plan.json" >"$tmp/bad.json"
that "unless that is said" draw --plan "$tmp/bad.json" --any-model -o "$tmp/b.png"
that "then it is drawn" cmp "$tmp/a.png" "$tmp/b.png"
refuses 1 "no plan: it is not JSON" "$weft" generate $model -p x --plan "$tmp/monster.safetensors"
refuses 1 "No such file" "$weft" generate $model -p x --plan "$tmp/nothing.json"
refuses 2 "the plan of --plan says that already" "$weft" generate $model -p x --plan "$tmp/plan.json" $M
refuses 2 "the plan of --plan says that already" "$weft" generate $model -p x --plan "$tmp/plan.json" --path side
refuses 2 "any-model is of --plan" "$weft" generate $model -p x --any-model
refuses 2 "is a .json file" "$weft" generate $model -p x --save-plan "$tmp/x.png"
refuses 1 "cannot write" "$weft" generate $model -p x --save-plan "$tmp/no/where.json"
printf '{"weft_plan": 1, "adapters": [{"file": "monster.safetensors"}]}' >"$tmp/small.json"
draw $few -p x $M -o "$tmp/a.png"
draw $few -p x --plan "$tmp/small.json" -o "$tmp/b.png"
that "a plan may be short" cmp "$tmp/a.png" "$tmp/b.png"

total
