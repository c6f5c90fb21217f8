#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# link.sh IMAGE [OPTION...] OBJECT...: links the hypervisor twice, the second time with the names of its functions,
# and checks that none of them moved and that the file is as the multiboot headers say.
set -eu
cd "$(dirname "$0")/.."
image=$1
shift

link() { # link OUTPUT OBJECT...
    ld -static -no-pie -nostdlib -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments \
        --build-id=none -T hv/x86/boot/link.lds -o "$@"
}
names() { nm -n "$1" | sed -n 's/^\([0-9a-f]*\) \([tT]\) /\1 \2 /p'; }
symbols() { # symbols OUTPUT NM
    hv/x86/symbols.sh "$2" >"$1.S"
    as -o "$1" "$1.S"
}

trap 'rm -f "$image".1 "$image".symbols* "$image".nm*' EXIT
: >"$image.nm"
symbols "$image.symbols.o" "$image.nm"
link "$image.1" "$@" "$image.symbols.o"
nm -n "$image.1" >"$image.nm"
symbols "$image.symbols.o" "$image.nm"
link "$image.2" "$@" "$image.symbols.o"
names "$image.1" >"$image.nm"
names "$image.2" >"$image.nm2"
if ! cmp -s "$image.nm" "$image.nm2"; then
    echo "$image: functions moved in the second link" >&2
    rm -f "$image.2"
    exit 1
fi
# Whatever link.lds does not place would be loaded where no boot loader puts it.
strays=$(readelf -SW "$image.2" | sed 's/^ *\[ *[0-9]*\] //' |
    awk '$7 ~ /A/ && $1 !~ /^\.(text|rodata|data|bss)$/ { print $1 }')
if [ -n "$strays" ]; then
    echo "$image: sections that link.lds does not place: $strays" >&2
    rm -f "$image.2"
    exit 1
fi
mv "$image.2" "$image"
