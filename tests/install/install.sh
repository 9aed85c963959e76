#!/bin/sh
# Install into a folder, build a stranger's program against that copy through pkg-config, shared and static,
# run both, and uninstall without a trace. Twice: with PREFIX alone, and staged below DESTDIR.
set -eu
B=${B:-build} CC=${CC:-cc}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
mk() { make -s --no-print-directory B="$B" CC="$CC" "$@"; }

# $1: folder that holds the tree, $2: prefix below it
use() {
    root=$1$2
    lib=$root/lib

    ls "$lib/libweft.a" "$lib/libweft.so" "$lib/pkgconfig/weft.pc" "$root/include/weft/weft.h" >/dev/null
    [ -L "$lib/libweft.so" ] || { echo "libweft.so is no link"; return 1; }
    soname=$(readelf -d "$lib/libweft.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
    [ -f "$lib/$soname" ] || { echo "$soname is not installed"; return 1; }

    # All paths of weft.pc hang on its prefix: a staged tree is read where it lies by changing that line.
    grep -q "^prefix=$2\$" "$lib/pkgconfig/weft.pc" || { echo "weft.pc: $(head -n1 "$lib/pkgconfig/weft.pc"), wanted $2"; return 1; }
    mkdir -p "$tmp/pc" && sed "s|^prefix=.*|prefix=$root|" "$lib/pkgconfig/weft.pc" > "$tmp/pc/weft.pc"
    pc() { PKG_CONFIG_PATH=$tmp/pc pkg-config "$@"; }
    want=$(sed -n 's/^#define WEFT_VERSION_M[AI][JN]OR //p' include/weft/base.h | paste -sd.)
    case $(pc --modversion weft) in "$want".*) ;; *) echo "weft.pc has the version $(pc --modversion weft)"; return 1 ;; esac

    # Shared: weft alone on the link line.
    libs=$(pc --libs weft)
    case $libs in *openblas* | *png* | *jansson*) echo "a shared link names more than weft: $libs"; return 1 ;; esac
    $CC tests/install/hello.c $(pc --cflags weft) $libs -o "$tmp/shared"
    LD_LIBRARY_PATH=$lib "$tmp/shared"

    # Static: with the shared library out of sight, the same words link the archive. Debian's openblas.pc asks for
    # gfortran, which only a static OpenBLAS needs; a machine without it is not our failure.
    mkdir "$tmp/a" && cp "$lib/libweft.a" "$tmp/a" && sed -i "s|^libdir=.*|libdir=$tmp/a|" "$tmp/pc/weft.pc"
    libs=$(pc --static --libs weft)
    for word in openblas png jansson utf8proc; do
        case $libs in *"$word"*) ;; *) echo "a static link lacks $word: $libs"; return 1 ;; esac
    done
    if ! echo 'int main(void) { return 0; }' | $CC -x c - -o "$tmp/probe" -lgfortran 2>/dev/null; then
        libs=$(echo "$libs" | sed 's/-lgfortran//g')
    fi
    $CC tests/install/hello.c $(pc --cflags weft) $libs -o "$tmp/static"
    "$tmp/static"
    readelf -d "$tmp/static" | grep -q libweft && { echo "the static program needs libweft.so"; return 1; }

    if [ -e "$root/bin/weft" ]; then "$root/bin/weft" --help >/dev/null; fi
    rm -r "$tmp/a"
}

mk install PREFIX="$tmp/one"
use '' "$tmp/one"
mk uninstall PREFIX="$tmp/one"

mk install DESTDIR="$tmp/two" PREFIX=/opt/weft
use "$tmp/two" /opt/weft
mk uninstall DESTDIR="$tmp/two" PREFIX=/opt/weft

left=$(find "$tmp/one" "$tmp/two" ! -type d)
[ -z "$left" ] || { echo "uninstall left:"; echo "$left"; exit 1; }
