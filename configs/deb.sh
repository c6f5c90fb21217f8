#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# deb.sh FOLDER: makes Debian packages of the tools there, from what `make install` installs: cleave (the command),
# libcleave0 and libcleave-dev. The same sources give the same bytes.
set -eu
cd "$(dirname "$0")/.."
out=$1
version=$(sed -n 's/^#define TOOL_VERSION "\(.*\)"/\1/p' tools/cleave/command.h)
architecture=$(dpkg --print-architecture)
libraries=usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGES.md)}"
export SOURCE_DATE_EPOCH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM
MAKEFLAGS="" make --no-print-directory -s install DESTDIR="$folder/all" PREFIX=/usr LIBDIR="/$libraries"
mkdir -p "$out"

# package NAME DEPENDS SECTION PURPOSE: of the files whose paths standard input has; a purpose's lines after the first
# are the description's
package() {
    root=$folder/$1
    files=$(cat)
    documents=$root/usr/share/doc/$1
    mkdir -p "$root/DEBIAN" "$documents"
    for file in $files; do
        mkdir -p "$root/$(dirname "$file")"
        cp -d "$folder/all/$file" "$root/$file"
        case $file in
        */bin/* | *.so.*) strip --strip-unneeded "$root/$file" ;;
        *.a) strip --strip-debug --enable-deterministic-archives "$root/$file" ;;
        *.1) gzip -9n "$root/$file" ;;
        esac
    done
    cp LICENSE "$documents/copyright"
    gzip -9nc CHANGES.md >"$documents/changelog.gz"
    needs=$2
    binaries=$(find "$root" -type f \( -path '*/bin/*' -o -name '*.so.*' \))
    if [ -n "$binaries" ]; then
        # What the distribution's packages are that its libraries come from. Ours is named by the caller.
        mkdir -p "$folder/shlibs/debian"
        : >"$folder/shlibs/debian/control"
        # shellcheck disable=SC2086  # several paths
        found=$(cd "$folder/shlibs" && dpkg-shlibdeps --ignore-missing-info -l"$folder/all/$libraries" -O \
            $binaries 2>/dev/null | sed 's/^shlibs:Depends=//')
        needs="$needs${needs:+, }$found"
    fi
    cat >"$root/DEBIAN/control" <<END
Package: $1
Version: $version
Architecture: $architecture
Maintainer: The Cleave authors <cleave@localhost>
Section: $3
Priority: optional
Installed-Size: $(du -k -s --apparent-size "$root" | cut -f 1)
Depends: $needs
Description: $4
END
    if [ "$1" = libcleave0 ]; then
        echo 'activate-noawait ldconfig' >"$root/DEBIAN/triggers"
        echo "libcleave 0 libcleave0 (>= $version)" >"$root/DEBIAN/shlibs"
    fi
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -print | sed 's/^..//' | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
    chmod -R u=rwX,go=rX "$root"
    dpkg-deb --root-owner-group --build "$root" "$out/$1_${version}_$architecture.deb"
}

cd "$folder/all"
find . -type f \( -path '*/bin/*' -o -path '*/man/*' -o -path '*/completions/*' \) | sed 's/^..//' >"$folder/cleave.files"
find . -name '*.so.*' -type f | sed 's/^..//' >"$folder/libcleave0.files"
find . -path '*/include/*' -type f -o -name '*.a' -o -name '*.so' -o -name '*.pc' | sed 's/^..//' >"$folder/libcleave-dev.files"
cd "$OLDPWD"
package cleave "libcleave0 (= $version)" admin 'forks and snapshots virtual machines of the Cleave hypervisor
 The command for the control domain of a machine that runs Cleave: it lists, forks, resets, snapshots and destroys
 running domains, and shows what memory they share.' <"$folder/cleave.files"
package libcleave0 '' libs 'library to fork and snapshot domains of the Cleave hypervisor
 What a program in the control domain can ask of Cleave.' <"$folder/libcleave0.files"
package libcleave-dev "libcleave0 (= $version), libxen-dev" libdevel 'headers to fork and snapshot domains of Cleave
 What is needed to build programs with libcleave.' <"$folder/libcleave-dev.files"
