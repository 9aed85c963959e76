#!/bin/sh
# The library never prints, exits, aborts, reads the environment or changes what belongs to the process: it
# does not even refer to a function that could. Nor does it sort with the C library, which may take memory past the
# allocator. Texts are made with vsnprintf and our own numbers.
set -eu
printing='v?d?f?w?printf|v?s?n?printf|v?asprintf|putchar|puts|fputs|fputc|putc|perror|psignal|std(in|out|err)|syslog'
ending='exit|_exit|_Exit|quick_exit|atexit|on_exit|abort|assert_fail|assert'
asking='(secure_)?getenv|putenv|setenv|unsetenv|environ|rand|srand|random|srandom|rand_r|[dlm]rand48|arc4random'
changing='setlocale|uselocale|signal|sigaction|raise|alarm|umask|chdir|fesetround|fesetenv|feenableexcept|_FPU_SETCW|feholdexcept'
jumping='_?_?setjmp|_?_?sigsetjmp|sig(set|long)jmp|_?longjmp'
reading='strto(d|f|ld)|atof|v?f?s?scanf'
others='qsort|qsort_r|fork|vfork|system|popen|exec[vl]p?e?|dlopen|gets|strtok'

# A name may come wrapped by the C library: __printf_chk, __isoc99_sscanf, __assert_fail, _IO_puts.
forbidden="^(__|_IO_|__isoc[0-9]+_)?($printing|$ending|$asking|$changing|$jumping|$reading|$others)(_chk|_l|_unlocked|64)?\$"

names=$(nm -D --undefined-only "${B:-build}"/libweft.so)
found=$(echo "$names" | awk '{ sub(/@.*/, "", $NF); print $NF }' |
        grep -vxE 'vsnprintf|__vsnprintf_chk' | grep -E "$forbidden" || true)
[ -z "$found" ] || { echo "libweft.so refers to:"; echo "$found" | sed 's/^/  /'; exit 1; }
