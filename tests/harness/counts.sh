#!/bin/sh
# tests/check.sh counts what its commands say, and an empty test program is a failure.
set -u
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
status=0
mkdir -p "$tmp/tests/x"

# program NAME EXIT LINE: a stand-in that prints a line and ends.
program() { printf '#!/bin/sh\necho "%s"\nexit %s\n' "$3" "$2" >"$tmp/tests/x/$1"; chmod +x "$tmp/tests/x/$1"; }

# sum NAME WANTED-STATUS WANTED-LAST-LINE
sum() {
    last=$(B=$tmp sh tests/check.sh "$tmp/tests/x/$1" >"$tmp/out" 2>&1; echo $? >"$tmp/rc"; tail -n1 "$tmp/out")
    [ "$(cat "$tmp/rc")" = "$2" ] && [ "$last" = "$3" ] && return
    echo "$1: status $(cat "$tmp/rc"), '$last'; wanted $2, '$3'"
    status=1
}

program test_three 0 '100%: Checks: 3, Failures: 0, Errors: 0'
program test_one_bad 1 '66%: Checks: 3, Failures: 1, Errors: 0'
program test_none 0 '100%: Checks: 0, Failures: 0, Errors: 0'
program test_silent 0 'no suite was run'
program test_dies 139 ''
program test_skips 77 'SKIP no such machine'
program script.sh 0 'fine'
program fuzz_x 0 '12 inputs'
program bad.sh 1 'not fine'

sum test_three 0 '3 passed, 0 failed, 0 skipped'
sum test_one_bad 1 '2 passed, 1 failed, 0 skipped'
sum test_none 1 '0 passed, 1 failed, 0 skipped'
sum test_silent 1 '0 passed, 1 failed, 0 skipped'
sum test_dies 1 '0 passed, 1 failed, 0 skipped'
sum test_skips 0 '0 passed, 0 failed, 1 skipped'
sum script.sh 0 '1 passed, 0 failed, 0 skipped'
sum fuzz_x 0 '1 passed, 0 failed, 0 skipped'
sum bad.sh 1 '0 passed, 1 failed, 0 skipped'
exit $status
