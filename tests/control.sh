#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# control.sh CASE: boots a stock Debian as control domain beside a Linux guest on QEMU, and runs programs of
# tests/system/xc/ in it, one after the other. control.sh --list: the cases.
#   qemu     all of them, and the command cleave
#   restart  some of them, on two vcpus; the control domain ends, with maps that it holds, and is started again while the
#            guests go on, and runs them once more
# CLEAVE_IMAGE names another image than build/gcc-debug/cleave.elf; the console is printed when one failed, or with V=1.
set -u
cd "$(dirname "$0")/.." || exit 2

if [ "${1:-}" = --list ]; then
    printf 'qemu\nrestart\n'
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
only=
cpus=1
if [ "$1" = restart ]; then
    only=only=life,maps,logdirty
    cpus=2
fi
cat >"$folder/boot.conf" <<EOF
pool main size=all
domain control pool=main kernel=vmlinux-control initrd=initrd-control.cpio memory=512M order=2 vcpus=$cpus control command="console=hvc0 nopvspin loglevel=4 $only"
domain template pool=main kernel=vmlinux initrd=initrd.cpio memory=128M order=2 vcpus=1 command="loglevel=5 console=hvc0 nopvspin workload=rest xen_privcmd.unrestricted=1"
domain worker pool=main kernel=vmlinux initrd=initrd.cpio memory=128M order=2 vcpus=1 command="loglevel=5 console=hvc0 nopvspin workload=idle forks=outside xen_privcmd.unrestricted=1"
domain short pool=main kernel=hello.elf memory=64M
option console=control script=script
EOF
{
    echo 'wait 32751' # the control domain
    if [ "$1" = restart ]; then
        printf 'restart\nwait 32751\n'
    fi
    echo 'finish'
} >"$folder/script"
status=0
configs/qemu.sh -m 3G -s $cpus -t 900 "${CLEAVE_IMAGE:-build/gcc-debug/cleave.elf}" "$folder/boot.conf" \
    build/linux/vmlinux-control build/linux/initrd-control.cpio build/linux/vmlinux build/linux/initrd.cpio \
    build/guests/hello.elf "$folder/script" >"$folder/console" 2>&1 || status=$?
tr -d '\r' <"$folder/console" >"$folder/lines"
failed=0
lines() { # lines COUNT PATTERN: so many are like that
    if [ "$(grep -c -e "$2" "$folder/lines")" != "$1" ]; then
        echo "FAIL  not $1 lines like: $2"
        failed=1
    fi
}
if [ "$1" = restart ]; then
    lines 2 '^--- life: status 0$'
    lines 2 '^--- maps: status 0$'
    lines 2 '^--- logdirty: status 0$'
    lines 2 '^domain 32751 control: powered off'
else
    for source in tests/system/control/cleave.sh tests/system/xc/*.c; do
        name=$(basename "${source%.*}")
        [ "$name" = xc ] || lines 1 "^--- $name: status 0\$"
    done
fi
grep -q '^verdict: pass' "$folder/lines" && [ "$status" = 0 ] || failed=1
if [ "$failed" != 0 ] || [ -n "${V:-}" ]; then
    cat "$folder/lines"
    echo "control on $1: status $status"
fi
exit "$failed"
