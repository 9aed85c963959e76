#!/bin/sh
# The gallery's page: a few of its rows, and what they refer to is there.
set -u
. tests/examples/expect

prints "K-LoRA  *4 pictures" sh examples/gallery/gallery.sh "$B" "$tmp/gallery" klora cached regions conflicts-weights
page=$tmp/gallery/index.html
that "and no more" test "$(grep -c '<section' "$page")" = 4
that "every row ends" test "$(grep -c '^</section>' "$page")" = 4
grep -oE 'src="[^"]*"' "$page" | cut -d'"' -f2 >"$tmp/pictures"
that "pictures, plans, a trace" test "$(wc -l <"$tmp/pictures")" = 17
while read -r file; do that "$file" test -s "$tmp/gallery/$file"; done <"$tmp/pictures"
for name in klora cached regions; do
    that "the plan of $name is a file" "$B/examples/weft" explain $model --plan "$tmp/gallery/$name.json"
done
for id in $(grep -oE 'href="#[a-z]*' "$page" | cut -d'#' -f2); do that "#$id" grep -q "id=\"$id\"" "$page"; done
that "what K-LoRA is for" grep -q "shows the choice before drawing" "$page"
that "the line that draws it" grep -q "weft generate examples/model -p 'a large zib monster .*compose klora" "$page"
that "its plan" grep -q "rho  *S_c / (gamma S_s)" "$page"
that "the cached error" grep -q "reused features change a call" "$page"
that "the verdict" grep -q "drowns" "$page"
that "no script" sh -c "! grep -qi '<script' '$page'"
# No < and > but of our tags: a text that is not escaped would be one.
grep -oE '<[^>]*>' "$page" | grep -vE '^</?(!doctype|html|head|meta|title|style|body|main|h[123]|p|nav|a|section|div|figure|img|figcaption|pre|details|summary|table|tr|td|code|footer)[ >]' >"$tmp/tags"
that "every tag is ours" test ! -s "$tmp/tags"
for row in klora regions; do that "the strip of $row" test -s "$tmp/gallery/strips/$row.png"; done
sh examples/gallery/gallery.sh "$tmp/nothing" "$tmp/none" >"$tmp/said" 2>&1
that "without the tool it fails" test $? = 1
that "and says so" grep -q "^gallery: there is no" "$tmp/said"
total
