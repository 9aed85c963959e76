#!/bin/sh
# Loading libweft runs none of our code, and the library keeps no state of its own: no constructors, and no
# writable variable besides what guards OpenBLAS's own: its thread count, its work areas and the workers that use them.
set -eu
B=${B:-build}
status=0

sections=$(readelf -SW "$B"/libweft.a)
code=$(echo "$sections" | grep -oE '\.(init_array|fini_array|preinit_array|ctors|dtors)[^ ]*' | sort -u || true)
[ -z "$code" ] || { echo "libweft.a has code to run at load or unload:" $code; status=1; }

# Tables of pointers are written once, by the loader, and then sealed (.data.rel.ro): they are no state.
symbols=$(objdump -t "$B"/libweft.a)
state=$(echo "$symbols" | awk '
    / file format /                                                        { member = $1 }
    / O (\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ && !/ \.data\.rel\.ro/      { print member $NF }' |
    grep -vxE 'blas_guard\.o:(holder|users|host_threads|process|held|tried|made|made_count)|pool\.o:workers_alive' | sort -u || true)
[ -z "$state" ] || { echo "writable variables of libweft.a:" $state; status=1; }
exit $status
