#!/bin/sh
# Break the library in one place, run the tests that should notice, and say whether one did.
#
# Mutants stand in tests/mutate/*.txt; docs/testing.md tells how they are written. For each one the
# changed source is compiled and linked before the library as it is, so its functions take the place
# of the library's own, and nothing else is built again. A mutant is caught if a check of a named
# test fails. A crash or a test that never ends shows that something is wrong and not what, so it
# does not count.
#
# From make: COMPILE (compiler and flags), LIBS, B. From the user: JOBS mutants at a time, and
# MUTANTS, a pattern of awk for the room or the name of those to run.
set -u

B=${B:-build}
JOBS=${JOBS:-2}
MUTANTS=${MUTANTS:-}
SECONDS_EACH=${SECONDS_EACH:-120}
W=$B/mutate
WEFT_TESTS=tests CK_VERBOSITY=normal CK_DEFAULT_TIMEOUT=60
export WEFT_TESTS CK_VERBOSITY CK_DEFAULT_TIMEOUT
unset MAKEFLAGS MAKELEVEL MFLAGS 2>/dev/null
tab=$(printf '\t')

# Does a check of this program fail? What it says goes into a file.
fails() {
    timeout "$SECONDS_EACH" "$1" >"$2" 2>&1 </dev/null
    grep -Eq '^[0-9]+%: Checks: [0-9]+, Failures: [1-9]' "$2"
}

# What a test is linked with beside mutant NUMBER of SOURCE. One of the tests has the networks with
# doubles for floats (tests/nets/double.h), and needs the mutant so too.
rest() {
    if [ "$3" != nets/test_double ]; then
        echo "$W/$1.o $B/libweft.a"
        return
    fi
    $COMPILE -O1 -w -include tests/nets/double.h -iquote "$(dirname "$2")" -c -o "$W/$1.double.o" "$W/$1.c" &&
        echo "$W/$1.double.o" "$B"/lib/base/*.o &&
        find "$B/double" -name '*.o' ! -path "$B/double/${2%.c}.o"
}

# verdict NUMBER SOURCE TESTS: on one line, what became of a mutant.
verdict() {
    dir=$(dirname "$2")
    if ! $COMPILE -O1 -w -iquote "$dir" -c -o "$W/$1.o" "$W/$1.c" >"$W/$1.log" 2>&1; then
        echo "DOES NOT COMPILE"
        return
    fi
    said='SURVIVED'
    for test in $3; do
        program=$W/$1.test
        if ! $LINK -o "$program" "$B/tests/$test.o" $(rest "$1" "$2" "$test") $LIBS \
            >"$W/$1.log" 2>&1; then
            echo "DOES NOT LINK"
            return
        fi
        if fails "$program" "$W/$1.log"; then
            said="caught by $test"
            break
        fi
        grep -q '^100%: Checks: [1-9]' "$W/$1.log" ||
            said="SURVIVED ($test crashed or took too long)"
    done
    rm -f "$W/$1.test" "$W/$1.o" "$W/$1.double.o"
    echo "$said"
}

# Every JOBS-th mutant of the list, from the one given.
work() {
    awk -v first="$1" -v jobs="$JOBS" 'NR % jobs == first' "$W/todo" |
    while IFS=$tab read -r number room source tests name; do
        result=$(verdict "$number" "$source" "$tests")
        printf '%s\t%s\t%s\n' "$room" "$result" "$name" >>"$W/results.$1"
        printf '  %-9s %-72s %s\n' "$room" "$name" "$result"
    done
}

rm -rf "$W"
mkdir -p "$W"
awk -v out="$W" -f tests/mutate/mutants.awk tests/mutate/*.txt || exit 1
awk -F "$tab" -v word="$MUTANTS" '$2 ~ word || $5 ~ word' "$W/list" >"$W/todo"
echo "$(grep -c . "$W/todo") mutants"

# A test that fails by itself catches nothing.
for test in $(cut -f 4 "$W/todo" | tr ' ' '\n' | sort -u); do
    timeout "$SECONDS_EACH" "$B/tests/$test" >"$W/plain.log" 2>&1 </dev/null && continue
    echo "$test fails without a mutant:"
    cat "$W/plain.log"
    exit 1
done

job=0
while [ $job -lt "$JOBS" ]; do
    work $job &
    job=$((job + 1))
done
wait

cat "$W"/results.* 2>/dev/null | awk -F "$tab" '
    { all[$1]++; total++ }
    $2 ~ /^caught/ { caught[$1]++; good++ }
    END {
        for (room in all)
            printf "  %-9s %4d mutants, %4d caught\n", room, all[room], caught[room] | "sort"
        close("sort")
        printf "%d of %d mutants are caught\n", good, total
        exit good != total
    }'
