#!/bin/sh
# The name that callers record is libweft.so.0.MINOR before 1.0, libweft.so.MAJOR after, as base.h says.
set -eu
number() { sed -n "s/^#define WEFT_VERSION_$1 //p" include/weft/base.h; }
major=$(number MAJOR) minor=$(number MINOR)
if [ "$major" = 0 ]; then want=libweft.so.0.$minor; else want=libweft.so.$major; fi
dynamic=$(readelf -d "${B:-build}"/libweft.so)
found=$(echo "$dynamic" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[ "$found" = "$want" ] || { echo "SONAME is '$found', base.h wants '$want'"; exit 1; }

# Everything that the library needs is named in it, so that no caller has to.
echo "$dynamic" | grep -q 'NEEDED.*openblas' || { echo "libweft.so does not name OpenBLAS"; exit 1; }
