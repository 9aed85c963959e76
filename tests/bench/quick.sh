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
        n = split("machine kernels startup memory bundled threads steps adapters time roofline", group, " ")
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

for picture in bench time; do
    [ "$(head -c 8 "$out/$picture.png" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] || fail "$picture.png is no PNG"
done
grep -q '^| text encoding of both prompts' "$out/table.md" || fail "the table has no row for text encoding"

# What it does not know it refuses.
if "$bench" --only nonsense --out "$out" 2>/dev/null; then fail "a group that is none was taken"; fi
if "$bench" --rounds 2>/dev/null; then fail "an option without its value was taken"; fi

# What was written can be read again: the same table, and the pictures.
mkdir "$out/again"
"$bench" --draw "$out/results.jsonl" --size 64 --out "$out/again" >"$out/again/table" 2>/dev/null
cmp -s "$out/again/table" "$out/table.md" || fail "--draw prints another table"
cmp -s "$out/again/time.png" "$out/time.png" || fail "--draw draws another picture of time"
