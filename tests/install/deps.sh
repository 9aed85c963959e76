#!/bin/sh
# `make deps` installs what a static link takes: on a machine, played by scripts, that has everything
# else, it asks for the Fortran library of the compiler's version, once; on one that has all, for nothing.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin"

play() { printf '#!/bin/sh\n%s\n' "$2" > "$tmp/bin/$1"; chmod +x "$tmp/bin/$1"; }
play pkg-config "case \$* in *--static*) echo -lopenblas -lgfortran ;; esac"
play cc "case \$* in *-lgfortran*) [ -e '$tmp/fortran' ] ;; esac"
play gcc 'echo 12.2.0'
play id 'echo 0'
play dpkg-query 'echo installed'
play apt-get "case \$* in
    *install*) echo \"\$*\" >> '$tmp/asked'; [ ! -e '$tmp/works' ] || touch '$tmp/fortran' ;;
    esac"
deps() { PATH=$tmp/bin:/usr/bin:/bin CC=cc PACKAGES='openblas libpng' .ci/deps >"$tmp/out" 2>&1; }

touch "$tmp/works"
deps || { echo "deps fails:"; cat "$tmp/out"; exit 1; }
[ "$(grep -c . "$tmp/asked")" = 1 ] && grep -q 'install .* libgfortran-12-dev$' "$tmp/asked" ||
    { echo "asked for:"; cat "$tmp/asked"; exit 1; }
deps && [ "$(grep -c . "$tmp/asked")" = 1 ] || { echo "asked twice"; cat "$tmp/asked"; exit 1; }

# Where installing does not help, it says what a static link takes.
rm "$tmp/works" "$tmp/fortran"
if deps; then echo "deps is content without -lgfortran"; exit 1; fi
grep -q 'static link fails: -lopenblas -lgfortran' "$tmp/out" || { cat "$tmp/out"; exit 1; }
