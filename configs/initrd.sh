#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# initrd.sh [-k ROOT] [-l ROOT] [-m MODULE]... OUT PATH=FILE...: an initial RAM file system (cpio, "newc") with each FILE at
# PATH, as an executable. From the kernel package unpacked below ROOT it takes each MODULE and those that it depends
# on into modules/, named in the order of loading in modules/order.
set -eu

root=
libraries=
modules=
while getopts k:l:m: option; do
    case $option in
    k) root=$OPTARG ;;
    l) libraries=$OPTARG ;;
    m) modules="$modules $OPTARG" ;;
    *)
        sed -n '3,6s/^# //p' "$0" >&2
        exit 2
        ;;
    esac
done
shift $((OPTIND - 1))
out=$1
shift

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice
tree=$folder/tree
mkdir -p "$tree/modules" "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/tmp"
: >"$tree/modules/order"

add_module() { # add_module NAME: behind what it depends on
    if [ -e "$tree/modules/$1.ko" ]; then
        return
    fi
    # A module's file may have - where its name has _.
    file=$(find "$root/lib/modules" "$root/usr/lib/modules" -name "$(echo "$1" | sed 's/[-_]/[-_]/g').ko" \
        2>/dev/null | head -n 1)
    if [ -z "$file" ]; then
        echo "initrd.sh: no module $1 below $root" >&2
        exit 1
    fi
    cp "$file" "$tree/modules/$1.ko"
    objcopy -O binary --only-section=.modinfo "$file" "$folder/modinfo"
    for needed in $(tr '\0' '\n' <"$folder/modinfo" | sed -n 's/^depends=//p' | tr , ' '); do
        add_module "$needed"
    done
    echo "$1.ko" >>"$tree/modules/order"
}
for module in $modules; do
    add_module "$module"
done
add_libraries() { # add_libraries FILE: those that it needs, and those that they need
    for library in $(readelf -ld "$1" 2>/dev/null | sed -n -e 's/.*(NEEDED).*\[\(.*\)\]/\1/p' \
        -e 's/.*interpreter: .*\/\(.*\)\]/\1/p'); do
        [ ! -e "$tree/lib/$library" ] || continue
        file=$(find "$libraries" -path "*/lib/x86_64-linux-gnu/$library" | head -n 1)
        if [ -z "$file" ]; then
            echo "initrd.sh: no library $library below $libraries" >&2
            exit 1
        fi
        install -D -m 755 "$file" "$tree/lib/$library"
        add_libraries "$tree/lib/$library"
    done
}
for pair; do
    install -D -m 755 "${pair#*=}" "$tree/${pair%%=*}"
    if [ -n "$libraries" ]; then
        add_libraries "$tree/${pair%%=*}"
    fi
done
if [ -n "$libraries" ]; then
    ln -s lib "$tree/lib64" # where programs look for their interpreter
fi

mkdir -p "$(dirname "$out")"
find "$tree" -exec touch -h -d @0 {} +
(cd "$tree" && find . | LC_ALL=C sort | cpio --quiet --reproducible -R 0:0 -H newc -o) >"$out.new"
mv "$out.new" "$out"
