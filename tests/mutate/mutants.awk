# Read the mutants of tests/mutate/*.txt, apply each one to its source, and say what does not fit.
#
#   awk -f mutants.awk [-v out=DIR] FILE...
#
# A mutant is a piece of one line of a source that must stand there exactly once. With `out`, mutant
# n becomes DIR/n.c, and DIR/list gets a line for it: n, room, source, tests, name, separated by
# tabs. Exit status 1 if any does not fit. The form of the files is told in docs/testing.md.

function complain(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    bad = 1
}

# The lines of a source, kept.
function load(path,    line, n) {
    if (path in lines) return lines[path] > 0
    n = 0
    while ((getline line < path) > 0) text[path, ++n] = line
    close(path)
    lines[path] = n
    return n > 0
}

# How often `piece` stands in the source, from the line with `after` to the end of that function;
# the place of the first is left in hit and column.
function find(path, after, piece,    i, at, from, count, last) {
    count = 0
    from = 1
    last = lines[path]
    if (after != "") {
        for (i = 1; i <= lines[path]; i++)
            if (index(text[path, i], after) > 0) {
                if (count++ == 0) from = i
            }
        if (count != 1) return -count - 1
        for (i = from; i <= last; i++)
            if (text[path, i] ~ /^}/) last = i
        count = 0
    }
    for (i = from; i <= last; i++) {
        at = index(text[path, i], piece)
        if (at == 0) continue
        if (count++ == 0) { hit = i; column = at }
        if (index(substr(text[path, i], at + 1), piece) > 0) count++
    }
    return count
}

function write(path, becomes,    i, line, to) {
    to = out "/" mutants ".c"
    for (i = 1; i <= lines[path]; i++) {
        line = text[path, i]
        if (i == hit)
            line = substr(line, 1, column - 1) becomes substr(line, column + length(was))
        print line > to
    }
    close(to)
    printf "%d\t%s\t%s\t%s\t%s\n", mutants, room, path, tests, name > (out "/list")
}

function finish(becomes,    n) {
    mutants++
    if (name == "") return complain("a mutant without a name")
    if (tests == "") return complain(name ": no tests")
    if (was == becomes) return complain(name ": nothing is changed")
    if (name in seen) return complain(name ": a second one of this name")
    seen[name] = 1
    if (!load(source)) return complain(source " is not there")
    n = find(source, after, was)
    if (n < 0) return complain(name ": '" after "' stands " (-n - 1) " times in " source)
    if (n != 1) return complain(name ": '" was "' stands " n " times in " source)
    if (out != "") write(source, becomes)
}

BEGIN { mutants = bad = 0 }
FNR == 1 {
    room = FILENAME
    sub(/.*\//, "", room)
    sub(/\.txt$/, "", room)
    source = tests = name = was = after = ""
}
/^$/ || /^#/ { next }
/^@ /  { source = substr($0, 3); next }
/^> /  { tests = substr($0, 3); next }
/^\* / { name = substr($0, 3); was = after = ""; next }
/^~ /  { after = substr($0, 3); next }
/^- /  { was = substr($0, 3); next }
/^\+/  { finish(substr($0, 3)); name = was = after = ""; next }
{ complain("what is this line?") }
END {
    if (mutants == 0) { print "no mutants"; bad = 1 }
    exit bad
}
