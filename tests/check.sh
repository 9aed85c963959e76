#!/bin/sh
# Run tests and count them: tests/check.sh 'command line' ...
#
# A test program (tests/*/test_*) uses libcheck and says how many checks it made; one that made none has failed. Anything
# else, a script or a fuzzer's replay, counts as one. Exit status 77 is a skip, and so is each output line that begins with
# "SKIP". Output is shown if something failed. The last line is the sum.
set -u

B=${B:-build}
WEFT_TESTS=${WEFT_TESTS:-tests}
: "${CK_DEFAULT_TIMEOUT:=300}"           # libcheck's own 4 seconds are for an idle machine without sanitizers
CK_VERBOSITY=normal                      # we read its line of totals
ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
TSAN_OPTIONS=${TSAN_OPTIONS:-die_after_fork=0} # some tests start threads in a child of theirs
export B WEFT_TESTS CK_DEFAULT_TIMEOUT CK_VERBOSITY ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS
unset MAKEFLAGS MAKELEVEL MFLAGS 2>/dev/null

passed=0 failed=0 skipped=0
work=$B/check
rm -rf "$work"
mkdir -p "$work"

# run NUMBER COMMAND: its output into a file, then its status and its seconds into another.
run='start=$(date +%s)
     timeout "${CHECK_TIMEOUT:-900}" sh -c "$2" >"$0/$1.log" 2>&1 </dev/null
     echo "$? $(($(date +%s) - start))" >"$0/$1.new" && mv "$0/$1.new" "$0/$1.done"'

is_program() { case $1 in */test_* | */fuzz_*) true ;; *) false ;; esac; }

# Programs run beside each other, one for each processor. Scripts look at the machine and at what is built: they run
# alone, after the programs.
number=0
for command in "$@"; do
    number=$((number + 1))
    if is_program "$command"; then printf '%s\0%s\0' $number "$command"; fi
done >"$work/programs"
xargs -0 -r -n 2 -P "${CHECK_JOBS:-$(nproc)}" sh -c "$run" "$work" <"$work/programs" &
programs=$!

number=0
for command in "$@"; do
    number=$((number + 1)) log=$work/$number.log
    if is_program "$command"; then
        while [ ! -e "$work/$number.done" ] && kill -0 $programs 2>/dev/null; do sleep 0.1; done
    else
        wait $programs
        sh -c "$run" "$work" $number "$command"
    fi
    status=1 seconds=0
    [ ! -e "$work/$number.done" ] || read -r status seconds <"$work/$number.done"
    [ -e "$log" ] || echo "it did not run" >"$log"

    # "100%: Checks: 12, Failures: 0, Errors: 0", once for each suite that was run.
    set_counts=$(awk '/^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/ {
                          n += $3; bad += $5 + $7 }
                      /^SKIP/ { skip++ }
                      END { print n + 0, bad + 0, skip + 0 }' "$log")
    read -r checks bad skip <<COUNTS
$set_counts
COUNTS
    if [ $status = 77 ]; then
        skip=$((skip > 0 ? skip : 1))
    elif [ $status != 0 ] && [ "$bad" = 0 ]; then
        bad=1                            # it died, or is no libcheck program
    elif [ $status = 0 ] && [ "$checks" = 0 ] && [ "$skip" = 0 ]; then
        case $command in
            */test_*) bad=1; echo "no checks were made" >>"$log" ;;
            *)        checks=1 ;;
        esac
    fi
    good=$((checks > bad ? checks - bad : 0))
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skip))

    word=ok
    [ "$skip" = 0 ] || word=skip
    [ "$bad" = 0 ] || word=FAIL
    printf '  %-5s %-60s %4d checks %4d s\n' $word "$(echo "$command" | sed "s|$B/tests/||;s|^tests/||")" "$good" $seconds
    if [ $word = FAIL ]; then
        sed 's/^/        /' "$log" | awk 'NR <= 80; END { if (NR > 80) print "        ... and " NR - 80 " lines more" }'
        echo "        (exit status $status)"
    elif [ $word = skip ]; then
        { grep '^SKIP' "$log" || cat "$log"; } | sed 's/^/        /'
    fi
done
rm -rf "$work"

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
