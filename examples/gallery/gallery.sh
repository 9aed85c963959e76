#!/bin/sh
# gallery.sh - every way to compose adapters, on the bundled model: one page with pictures, tables and reports.
#
#   sh examples/gallery/gallery.sh [BUILD [OUT [ROW...]]]
#
# All is made by the tool, build/examples/weft, with the command lines that the page shows: whoever wants one of
# the pictures copies its line. A subject and a style are in four pairs, always with the same prompts and seeds,
# so that only the method differs from row to row. What a method is for, when it fails and what it costs is the
# tool's own help. With names of rows it makes these alone. Pictures side by side, for the guide, are written into OUT/strips.
set -eu

B=${1:-build} OUT=${2:-build/gallery}
[ $# -lt 2 ] || shift 2
only=$*
weft=$B/examples/weft
M=examples/model A=examples/model/adapters masks=examples/gallery
mkdir -p "$OUT/strips"
page=$OUT/index.html
began=$(date +%s)
rows=0 pictures=0 name= strip= skip= wide=

die() { echo "gallery: $*" >&2; exit 1; }
[ -x "$weft" ] || die "there is no $weft: make it first"
[ -f $M/model_index.json ] || die "run it where $M is"

# ---- HTML ---------------------------------------------------------------------------------------------------------

html() { sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'; }
put() { [ "$skip" ] || printf '%s\n' "$*" >>"$page"; }

# The arguments as a shell would take them again.
line() {
    for word do
        case $word in
        *[!A-Za-z0-9_./:,=+-]*|'') printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
}

# command WORD...: shown, run; what it says is kept in $OUT/said.
command_line() { printf 'weft%s' "$(line "$@")" | html; }
run() {
    "$weft" "$@" >"$OUT/said" 2>&1 || { cat "$OUT/said" >&2; die "this failed: weft$(line "$@")"; }
}

# What is open ends where the next begins.
row_end() {
    [ "$name" ] && [ ! "$skip" ] || { name= skip=; return 0; }
    put '</section>'
    echo "$shown pictures, $(($(date +%s) - row_began)) s"
    name=
}

# chapter NAME TITLE TEXT
chapter() {
    row_end
    put "<h2 id=\"$1\">$2</h2>"
    [ -z "${3-}" ] || put "<p>$3</p>"
    echo "$2"
}

# row NAME TITLE [TEXT]: begins a row. Its text is the help's, if the name is a method's, and what is said here.
row() {
    row_end
    name=$1 title=$2
    case " $only " in '  '|*" $name "*) ;; *) skip=yes; return ;; esac
    rows=$((rows + 1)) row_began=$(date +%s)
    printf '  %-44s' "$title"
    put "<section id=\"$name\"><h3>$title</h3>"
    if [ "${4-}" ]; then
        put "<p>$("$weft" help "$4" | awk '/^$/ { n++; next } n == 1' | html)</p>"
    fi
    [ -z "${3-}" ] || put "<p class=\"seen\">$3</p>"
    strip='' shown=0
}

# picture LABEL WORD...: weft generate, its line and its picture. Every picture of a row has a number.
picture() {
    [ ! "$skip" ] || return 0
    label=$1; shift
    shown=$((shown + 1)) pictures=$((pictures + 1))
    file=$name-$shown.png
    [ $shown = 1 ] && { first_line=$(command_line generate "$@" -o $file); put '<div class="pictures">'; }
    run generate "$@" -o "$OUT/$file"
    put "<figure class=\"$wide\"><img src=\"$file\" alt=\"$label\" title=\"$(command_line generate "$@" -o $file)\"><figcaption>$label</figcaption></figure>"
    strip="$strip
$OUT/$file
$label"
}

# batch LABELS WORD...: one weft generate that draws several pictures, named by LABELS, separated by /.
batch() {
    [ ! "$skip" ] || return 0
    labels=$1; shift
    [ $shown = 0 ] && { first_line=$(command_line generate "$@" -o $name.png); put '<div class="pictures">'; }
    run generate "$@" -o "$OUT/$name-b$shown.png"
    number=0 old=$IFS IFS=/
    for label in $labels; do
        number=$((number + 1)) shown=$((shown + 1)) pictures=$((pictures + 1))
        mv "$OUT/$name-b$((shown - number))-$number.png" "$OUT/$name-$shown.png"
        put "<figure><img src=\"$name-$shown.png\" alt=\"$label\"><figcaption>$label</figcaption></figure>"
        strip="$strip
$OUT/$name-$shown.png
$label"
    done
    IFS=$old
}

# pictures_end [COLUMNS]: closes the pictures, shows the first one's line, and writes the strip.
pictures_end() {
    [ ! "$skip" ] || return 0
    put "</div><pre class=\"line\">$first_line</pre>"
    (
        IFS='
'
        set -f
        # shellcheck disable=SC2086
        "$B/examples/sheet" "$OUT/strips/$name.png" 2 "${1:-4}" $strip
    ) || die "no strip of $name"
}

# plan WORD...: what weft explain says, its picture, and the plan as JSON.
plan() {
    [ ! "$skip" ] || return 0
    run explain $M "$@" -o "$OUT/$name-plan.png" --save-plan "$OUT/$name.json"
    put "<p class=\"cost\">$(sed -n 's/.*: \([0-9]* calls, [0-9]* evaluations\).*/\1/p' "$OUT/said")</p>"
    put "<details><summary>The plan, before a step is run</summary><pre class=\"line\">$(command_line explain $M "$@" -o $name-plan.png --save-plan $name.json)</pre>"
    put "<img class=\"table\" src=\"$name-plan.png\" alt=\"table of coefficients, layers down, calls across; strengths, costs\" loading=\"lazy\">"
    put "<pre>$(grep -v '^weft: wrote' "$OUT/said" | html)</pre></details>"
    put "<details><summary>The plan as JSON</summary><p><a href=\"$name.json\">$name.json</a></p><pre>$(html <"$OUT/$name.json")</pre></details>"
}

# trace WORD...: what acted in a finished run.
trace() {
    [ ! "$skip" ] || return 0
    run generate "$@" --trace "$OUT/$name-trace.png" -o "$OUT/traced.png"
    put "<details><summary>The trace, after the run</summary><pre class=\"line\">$(command_line generate "$@" --trace $name-trace.png)</pre>"
    put "<img class=\"table\" src=\"$name-trace.png\" alt=\"what acted, layers down, calls across\" loading=\"lazy\"></details>"
}

# ---- pairs --------------------------------------------------------------------------------------------------------

# What all pictures have in common. With --text-plan all every method reads the same encoded prompt.
common="-g 5 -q"

# pairs SUBJECT_WEIGHT STYLE_WEIGHT WORD...: the four pairs under the same options.
pairs() {
    subject=$1 style=$2; shift 2
    picture "monster, hatching" $M -p "a large zib monster on a red background, hatched style" --seed 2 $common \
        -a $A/monster.safetensors:$subject -a $A/hatching.safetensors:$style "$@"
    picture "monster, mosaic" $M -p "a large zib monster on a yellow background, mosaic style" --seed 2 $common \
        -a $A/monster.safetensors:$subject -a $A/mosaic.safetensors:$style "$@"
    picture "rocket, hatching" $M -p "a large vok rocket on a green background, hatched style" --seed 1 $common \
        -a $A/rocket:$subject -a $A/hatching.safetensors:$style "$@"
    picture "rocket, mosaic" $M -p "a large vok rocket on a blue background, mosaic style" --seed 1 $common \
        -a $A/rocket:$subject -a $A/mosaic.safetensors:$style "$@"
    pictures_end
    plan -g 5 -a $A/monster.safetensors:$subject -a $A/hatching.safetensors:$style "$@"
}

# ---- parts of rows ------------------------------------------------------------------------------------------------

# What the cached composite of the first pair loses, as generate --measure says.
cached_error() {
    [ ! "$skip" ] || return 0
    set -- $M -p "a large zib monster on a red background, hatched style" --seed 2 -g 5 -a $monster:0.9 -a $hatching:0.9 \
        --compose composite --cached --measure
    run generate "$@" -o "$OUT/traced.png"
    put "<pre class=\"line\">$(sed -n 's/^weft: \(reused.*\)/\1/p' "$OUT/said" | html)</pre><pre class=\"line\">$(command_line generate "$@")</pre>"
    trace "$@" -q
}

# merged LABEL WORD...: the adapters of the first pair become a file, which then draws.
merged() {
    [ ! "$skip" ] || return 0
    label=$1; shift
    set -- merge $M -a $monster:0.9 -a $hatching:0.9 --into adapter "$@"
    run "$@" -o "$OUT/merged.safetensors"
    list="$list<tr><td>$label<td><code>$(command_line "$@" -o merged.safetensors)</code><td>$(tail -n 1 "$OUT/said" | grep layers | html)"
    picture "$label" $M -p "a large zib monster on a red background, hatched style" --seed 2 $common -a "$OUT/merged.safetensors"
}

# conflict NAME TITLE ADAPTER ADAPTER
conflict() {
    row "$1" "$2"
    [ ! "$skip" ] || return 0
    run conflicts $M -a "$3" -a "$4" -o "$OUT/$1.png"
    put "<pre class=\"line\">$(command_line conflicts $M -a "$3" -a "$4" -o "$1.png")</pre><pre>$(grep -v '^weft: wrote' "$OUT/said" | html)</pre>"
    put "<img class=\"table\" src=\"$1.png\" alt=\"layers down, four columns: norms, cosine, clash, overlap\" loading=\"lazy\">"
    pictures=$((pictures + 1)) shown=1
}

cat $masks/head.html >"$page"
. $masks/rows.sh

# ---- the end ------------------------------------------------------------------------------------------------------

row_end
put "<footer>$rows rows, $pictures pictures, made in $(($(date +%s) - began)) s by <code>make gallery</code> with $("$weft" --version).</footer></main></body></html>"
rm -f "$OUT/said" "$OUT/merged.safetensors" "$OUT/traced.png"
echo "$pictures pictures in $(($(date +%s) - began)) s: $page"
