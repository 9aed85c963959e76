#!/bin/sh
# The benchmark's own code works: --quick on the bundled model goes through all groups, and what it writes can be read. How
# long anything took is not looked at.
set -eu

out=$B/bench-quick
bench=$B/tests/bench/bench
rm -rf "$out"
mkdir -p "$out"
fail() { echo "$1"; exit 1; }

"$bench" --quick --rounds 9 --threads 2 --no-peers --out "$out" >"$out/said" 2>"$out/progress" || { cat "$out/progress"; exit 1; }

# Every line is an object with the keys of its group; every group came.
awk '
    function need(keys,  n, i, k) {
        n = split(keys, k, " ")
        for (i = 1; i <= n; i++)
            if (index($0, "\"" k[i] "\": ") == 0) { print FILENAME ":" FNR ": no \"" k[i] "\": " $0; bad = 1 }
    }
    !/^\{"group": "[a-z]+", .*\}$/ { print FILENAME ":" FNR ": no object with a group: " $0; bad = 1 }
    /nan|inf/ { print FILENAME ":" FNR ": not a number of JSON: " $0; bad = 1 }
    {
        split($0, part, "\""); seen[part[4]]++
        if (part[4] == "machine") need("processor threads bf16 judged_by load")
        else if (part[4] == "kernels") need("what tier seconds rate unit")
        else if (part[4] == "time") need("what label part seconds")
        else if (part[4] == "roofline") need("what label shape calls flops bytes seconds of_ceiling")
        else need("id what unit measured least most bar stretch better verdict rounds weft peer peer_name")
    }
    END {
        n = split("machine kernels startup memory bundled threads steps adapters time roofline train", group, " ")
        for (i = 1; i <= n; i++) if (!(group[i] in seen)) { print "no line of the group " group[i]; bad = 1 }
        exit bad
    }' "$out/results.jsonl"
python=${PYTHON:-python3}
if "$python" -c 'import json' 2>/dev/null; then
    "$python" -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$out/results.jsonl"
fi

# Two things that it measures are no times: threads change no bit, and all of a step is shared out among its parts.
grep -q '"id": "threads.bits".*"measured": 0,' "$out/results.jsonl" || fail "threads changed a result"
[ "$(grep -c '"what": "step", "label": "f32", "part"' "$out/results.jsonl")" = 7 ] || fail "a step has other parts than seven"

# Both arithmetics do the same work, shape by shape.
awk -F'"' '/"group": "roofline"/ {
        split($0, part, "\"calls\": "); split(part[2], calls, ","); split($0, part, "\"flops\": "); split(part[2], flops, ",")
        work[$8 "/" $12 "/" $16] = calls[1] " " flops[1]; kinds[$12]++
    }
    END {
        for (key in work) {
            split(key, k, "/"); other = k[1] "/bf16/" k[3]
            if (k[2] == "f32" && ("bf16" in kinds) && work[other] != work[key]) {
                print key ": " work[key] ", in bf16 " work[other]; bad = 1
            }
        }
        exit bad || !("f32" in kinds)
    }' "$out/results.jsonl" || fail "the arithmetics differ in what they did"

is_png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] || fail "$1 is no PNG"; }
is_png "$out/time.png"
grep -q '^| text encoding of both prompts' "$out/table.md" || fail "the table has no row for text encoding"

# What it does not know it refuses.
if "$bench" --only nonsense --out "$out" 2>/dev/null; then fail "a group that is none was taken"; fi
if "$bench" --rounds 2>/dev/null; then fail "an option without its value was taken"; fi
refused() {
    code=0
    "$bench" "$@" --out "$out" >"$out/refusal" 2>&1 || code=$?
    [ $code = 2 ] && [ "$(wc -l <"$out/refusal")" = 1 ] || { cat "$out/refusal"; fail "not refused in one line: $*"; }
}
refused --only steps,nonsense
refused --only steps,
refused --rounds three
refused --rounds 0
refused --threads 2x
refused --size 100
refused --size ''
refused --model "$out/no-such-model"
refused --quick --sdxl
refused --quick --only sdxl

# What was not asked for is neither written nor named.
mkdir "$out/part"
"$bench" --quick --threads 2 --no-peers --only memory --out "$out/part" >"$out/part.said" 2>/dev/null
tail -n 1 "$out/part.said" | grep -q 'results.jsonl, table.md$' || fail "files are named that were not asked for"
[ "$(ls "$out/part")" = "results.jsonl
table.md" ] || fail "files are written that were not asked for"

# What was written can be read again: the same table, and the pictures.
mkdir "$out/again"
"$bench" --draw "$out/results.jsonl" --size 64 --out "$out/again" >"$out/again/table" 2>/dev/null
cmp -s "$out/again/table" "$out/table.md" || fail "--draw prints another table"
cmp -s "$out/again/time.png" "$out/time.png" || fail "--draw draws another picture of time"

# Verdicts, from rows with bars: no stretch without the bar, no word on a share that the rounds spread over its bar.
row() {
    printf '{"group": "x", "id": "%s", "what": "row %s", "unit": "%s", "measured": %s, "least": %s, "most": %s, "bar": %s, ' \
        "$1" "$1" "$2" "$3" "$4" "$5" "$6"
    printf '"stretch": %s, "better": "%s", "verdict": "", "rounds": 3, "weft": 1, "peer": %s, "peer_name": "%s"}\n' \
        "$7" "$8" "$9" "${10:-}"
}
{
    row pass s 0.8 0.7 0.9 1 0.5 less null
    row stretch s 0.4 0.4 0.5 1 0.5 less null
    row miss GFLOP/s 80 70 90 100 60 more null
    row noise % 2.4 1 3 2.5 1.4 less null
    row sure % 2.4 2.3 2.45 2.5 1.4 less null
    row beside x 1.6 1.5 1.8 1.7 1.5 more 1.6 PyTorch
    row none s 1 1 1 null null less null
} >"$out/rows.jsonl"
"$bench" --draw "$out/rows.jsonl" --out "$out/again" >"$out/again/verdicts" 2>/dev/null
is_png "$out/again/bench.png"
said=$(awk -F'|' '/row / { gsub(/ /, "", $11); printf "%s ", $11 }' "$out/again/verdicts")
[ "$said" = "pass stretch miss noise pass miss - " ] || fail "verdicts: $said"
