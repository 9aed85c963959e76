#!/bin/sh
# Install into a folder, build a stranger's program against that copy through pkg-config, shared and static,
# run both, and uninstall without a trace. Three times: with PREFIX only, staged below DESTDIR, and with the library in
# a folder of the machine's (LIBDIR), as distributions have it.
set -eu
B=${B:-build} CC=${CC:-cc}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
mk() { make -s --no-print-directory B="$B" CC="$CC" "$@"; }

# The tool runs with the library that was installed beside it, and with no other.
# $1: the tool, $2: the library's folder
tool() {
    "$1" --help >/dev/null || return 1
    mv "$2" "$2.away"
    if "$1" --help >/dev/null 2>&1; then echo "$1 runs without $2"; return 1; fi
    mv "$2.away" "$2"
}

# $1: folder that holds the tree, $2: prefix below it, $3: the library's folder below that
use() {
    root=$1$2
    lib=$root/$3

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
    # gfortran, which `make deps` installs.
    mkdir "$tmp/a" && cp "$lib/libweft.a" "$tmp/a" && sed -i "s|^libdir=.*|libdir=$tmp/a|" "$tmp/pc/weft.pc"
    libs=$(pc --static --libs weft)
    for word in openblas png turbojpeg jansson utf8proc; do
        case $libs in *"$word"*) ;; *) echo "a static link lacks $word: $libs"; return 1 ;; esac
    done
    $CC tests/install/hello.c $(pc --cflags weft) $libs -o "$tmp/static" ||
        { echo "a static link fails: 'make deps' installs what it takes"; return 1; }
    "$tmp/static"
    readelf -d "$tmp/static" | grep -q libweft && { echo "the static program needs libweft.so"; return 1; }

    # Nothing shared at all, where every library is here as an archive too.
    if echo 'int main(void) { return 0; }' | $CC -static -x c - -o "$tmp/probe" $(pkg-config --static --libs openblas libpng libturbojpeg jansson libutf8proc) 2>/dev/null; then
        $CC -static tests/install/hello.c $(pc --cflags weft) $libs -o "$tmp/whole"
        "$tmp/whole"
        readelf -d "$tmp/whole" | grep -q NEEDED && { echo "the whole program needs shared libraries"; return 1; }
    fi

    tool "$root/bin/weft" "$lib"
    rm -r "$tmp/a"
}

mk install PREFIX="$tmp/one"
use '' "$tmp/one" lib
mk uninstall PREFIX="$tmp/one"

mk install DESTDIR="$tmp/two" PREFIX=/opt/weft
use "$tmp/two" /opt/weft lib
mk uninstall DESTDIR="$tmp/two" PREFIX=/opt/weft

mk install DESTDIR="$tmp/three" PREFIX=/usr LIBDIR=/usr/lib/some-machine BINDIR=/usr/bin
use "$tmp/three" /usr lib/some-machine
# The same tool linked anew for another folder, two steps away from the library's
mk install DESTDIR="$tmp/three" PREFIX=/usr LIBDIR=/usr/lib/some-machine BINDIR=/usr/games/more
tool "$tmp/three/usr/games/more/weft" "$tmp/three/usr/lib/some-machine"
mk uninstall DESTDIR="$tmp/three" PREFIX=/usr LIBDIR=/usr/lib/some-machine BINDIR=/usr/games/more
mk uninstall DESTDIR="$tmp/three" PREFIX=/usr LIBDIR=/usr/lib/some-machine

left=$(find "$tmp/one" "$tmp/two" "$tmp/three" ! -type d)
[ -z "$left" ] || { echo "uninstall left:"; echo "$left"; exit 1; }
