#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# iso.sh [-b] [-c WORDS] OUT IMAGE [MODULE...]: a disc that boots IMAGE with GRUB by multiboot2, from
# BIOS and UEFI (-b: BIOS only, a small one). WORDS are the command line. A MODULE is a file, perhaps
# with words after it: "file word...".
set -eu

usage() { sed -n '3,5s/^# //p' "$0"; }
words=
only=
while getopts bc: option; do
    case $option in
    b) only="-d /usr/lib/grub/i386-pc --locales= --themes= --fonts=" ;;
    c) words=$OPTARG ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || {
    usage >&2
    exit 2
}
out=$1
image=$2
shift 2

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice
mkdir -p "$folder/disc/boot/grub"
cp "$image" "$folder/disc/boot/cleave.elf"
{
    echo "multiboot2 /boot/cleave.elf $words"
    number=0
    for module; do
        file=${module%% *}
        name=${file##*/}
        arguments=${module#"$file"}
        number=$((number + 1))
        cp "$file" "$folder/disc/boot/$number"
        # GRUB leaves the file's name out of a module's command line.
        echo "module2 /boot/$number $name$arguments"
    done
    echo boot
} >"$folder/disc/boot/grub/grub.cfg"
# shellcheck disable=SC2086  # options
if ! grub-mkrescue $only -o "$out" "$folder/disc" >"$folder/log" 2>&1; then
    cat "$folder/log" >&2
    exit 1
fi
