#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# vmlinux.sh BZIMAGE OUT: writes the ELF kernel that a bzImage holds, compressed, to OUT, and checks that it is one
# that boots as a PVH guest. Field names and offsets: Documentation/arch/x86/boot.rst of Linux.
set -eu

image=$1
out=$2
fail() {
    echo "vmlinux.sh: $image: $1" >&2
    exit 1
}
number() { od -An -v "-tu$3" -j "$2" -N "$3" "$1" | tr -d ' '; }
bytes() { od -An -v -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n'; }

[ "$(bytes "$image" 514 4)" = 48647253 ] || fail "no setup header (HdrS)"
[ "$(number "$image" 518 2)" -ge 520 ] || fail "a boot protocol before 2.08 says not where the kernel is"
sectors=$(number "$image" 497 1) # setup_sects
[ "$sectors" != 0 ] || sectors=4
start=$(((sectors + 1) * 512 + $(number "$image" 584 4))) # payload_offset
length=$(number "$image" 588 4)                           # payload_length
if [ $((start + length)) -gt "$(wc -c <"$image")" ] || [ "$length" -lt 8 ]; then
    fail "cut short"
fi

# Behind the compressed stream stand four bytes: the kernel's size.
case $(bytes "$image" "$start" 4) in
02214c18) unpack="lz4 -q -d -c" ;;
fd377a58) unpack="xz -q -d -c" ;;
*) fail "compressed in a way unknown here: $(bytes "$image" "$start" 4)" ;;
esac
size=$(number "$image" $((start + length - 4)) 4)
mkdir -p "$(dirname "$out")"
tail -c +$((start + 1)) "$image" | head -c $((length - 4)) | $unpack >"$out.new" || fail "cannot be unpacked"
[ "$(wc -c <"$out.new")" = "$size" ] || fail "unpacks to another size than $size"
readelf -hn "$out.new" 2>/dev/null | awk '
    /Class:.*ELF64/ { elf = 1 }
    /^ *Xen .*(0x00000012|XEN_ELFNOTE_PHYS32_ENTRY)/ { note = 1 }
    END { exit !(elf && note) }' || fail "holds no 64-bit ELF kernel with the note PHYS32_ENTRY of Xen"
mv "$out.new" "$out"
