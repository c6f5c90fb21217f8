#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# control.sh MACHINE: boots a stock Debian as control domain beside two Linux guests and a tiny one, and runs
# tests/system/control/cleave.sh, then the programs of tests/system/xc/, in it. control.sh --list: the machines.
# CLEAVE_IMAGE names another image than build/gcc-debug/cleave.elf; the console is printed when one failed, or with V=1.
set -u
cd "$(dirname "$0")/.." || exit 2

if [ "${1:-}" = --list ]; then
    echo qemu
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/boot.conf" <<'EOF'
pool main size=all
domain control pool=main kernel=vmlinux-control initrd=initrd-control.cpio memory=512M order=2 vcpus=1 control command="console=hvc0 nopvspin loglevel=4"
domain template pool=main kernel=vmlinux initrd=initrd.cpio memory=128M order=2 vcpus=1 command="loglevel=5 console=hvc0 nopvspin workload=rest xen_privcmd.unrestricted=1"
domain worker pool=main kernel=vmlinux initrd=initrd.cpio memory=128M order=2 vcpus=1 command="loglevel=5 console=hvc0 nopvspin workload=idle forks=outside xen_privcmd.unrestricted=1"
domain short pool=main kernel=hello.elf memory=64M
option console=control script=script
EOF
printf 'wait 32751\nfinish\n' >"$folder/script" # the control domain
status=0
configs/qemu.sh -m 3G -s 1 -t 400 "${CLEAVE_IMAGE:-build/gcc-debug/cleave.elf}" "$folder/boot.conf" \
    build/linux/vmlinux-control build/linux/initrd-control.cpio build/linux/vmlinux build/linux/initrd.cpio build/guests/hello.elf "$folder/script" \
    >"$folder/console" 2>&1 || status=$?
tr -d '\r' <"$folder/console" >"$folder/lines"
failed=0
for source in tests/system/control/cleave.sh tests/system/xc/*.c; do
    name=$(basename "${source%.*}")
    if [ "$name" != xc ] && ! grep -q "^--- $name: status 0\$" "$folder/lines"; then
        echo "FAIL  $name"
        failed=1
    fi
done
grep -q '^verdict: pass' "$folder/lines" && [ "$status" = 0 ] || failed=1
if [ "$failed" != 0 ] || [ -n "${V:-}" ]; then
    cat "$folder/lines"
    echo "control on $1: status $status"
fi
exit "$failed"
