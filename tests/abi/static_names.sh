#!/bin/sh
# Every global of libweft.a begins with weft_, weftx_ or wf_: in a static link nothing else keeps our names
# from meeting somebody else's.
set -eu
names=$(nm -g --defined-only "${B:-build}"/libweft.a)
foreign=$(echo "$names" | awk 'NF == 3 && $3 !~ /^(weft_|weftx_|wf_)/ { print "  " $3 }')
[ -z "$foreign" ] || { echo "globals of libweft.a without our prefix:"; echo "$foreign"; exit 1; }
