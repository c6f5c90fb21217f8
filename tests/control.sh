#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# control.sh CASE: boots a stock Debian as control domain beside Linux guests, and runs programs of tests/system/ in it,
# one after the other. control.sh --list: the cases; the last two in a long check.
#   qemu     those of tests/system/xc/, and the command cleave; their answers are compared with Xen's
#            (answers.sh)
#   bochs    the command in its short form, on the other machine
#   intel    programs of tests/system/xc/ on the other machine, those that do not take too long there
#   restart  some of them, on two vcpus; the control domain ends, with maps that it holds, and is started again while the
#            guests go on, finds them by their names, and runs the programs once more
# CLEAVE_IMAGE names another image, CLEAVE_ONLY=NAME,... what alone runs of "qemu" (create, maps); the console is printed when one failed, or with V=1.
set -u
cd "$(dirname "$0")/.." || exit 2

if [ "${1:-}" = --list ]; then
    printf 'qemu\nbochs\n'
    [ -z "${CLEAVE_LONG:-}" ] || printf 'intel\nrestart\n'
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
machine=qemu
limits="-m 3G -t 900"
image=build/gcc-debug/cleave.elf
only=${CLEAVE_ONLY:+only=$CLEAVE_ONLY}
initrd='initrd-control.cpio'
memory=704M
pool=2688M # what is left is for pools that the tests make
cpus=1
template='domain template pool=main kernel=vmlinux initrd=initrd.cpio memory=128M order=2 vcpus=1 command="loglevel=5 console=hvc0 nopvspin workload=rest xen_privcmd.unrestricted=1"'
short='domain short pool=main kernel=hello.elf memory=64M'
case $1 in
qemu) ;;
restart)
    only=only=found,life,maps,logdirty
    cpus=2
    ;;
bochs)
    machine=bochs
    pool=all
    initrd='initrd-short.cpio'
    memory=256M
    template= # it does without these
    short=
    limits="-m 768 -t 1500"
    image=build/gcc-release/cleave.elf
    ;;
intel)
    machine=bochs
    pool=1600M
    limits="-m 2048 -t 3000"
    image=build/gcc-release/cleave.elf
    short=
    only=${CLEAVE_ONLY:-context,created,events,forks,info,life,log,maps,memory,params,rebuild}
    CLEAVE_ONLY=$only # these, and no answers
    only=only=$only
    ;;
*) exit 2 ;;
esac
cat >"$folder/boot.conf" <<EOF
pool main size=$pool
domain control pool=main kernel=vmlinux-control initrd=$initrd memory=$memory order=2 vcpus=$cpus control command="console=hvc0 nopvspin loglevel=4 tests $only"
$template
domain worker pool=main kernel=vmlinux initrd=initrd.cpio memory=128M order=2 vcpus=1 command="loglevel=5 console=hvc0 nopvspin workload=idle forks=outside xen_privcmd.unrestricted=1"
$short
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
# shellcheck disable=SC2086  # words are meant
configs/$machine.sh $limits -s $cpus "${CLEAVE_IMAGE:-$image}" "$folder/boot.conf" \
    build/linux/vmlinux-control "build/linux/$initrd" build/linux/vmlinux build/linux/initrd.cpio \
    build/guests/hello.elf "$folder/script" >"$folder/console" 2>&1 || status=$?
tr -d '\r' <"$folder/console" >"$folder/lines"
failed=0
lines() { # lines COUNT PATTERN: so many are like that
    if [ "$(grep -c -e "$2" "$folder/lines")" != "$1" ]; then
        echo "FAIL  not $1 lines like: $2"
        failed=1
    fi
}
if [ "$1" = bochs ]; then
    lines 1 '^--- short: status 0, '
elif [ "$1" = restart ]; then
    lines 2 '^--- found: status 0, '
    lines 1 '^found: left$'
    lines 2 '^--- life: status 0, '
    lines 2 '^--- maps: status 0, '
    lines 2 '^--- logdirty: status 0, '
    lines 2 '^domain 32751 control: powered off'
else
    for source in tests/system/control/cleave.sh tests/system/control/create.sh tests/system/control/rights.sh \
        tests/system/control/short.sh tests/system/xc/*.c; do
        name=$(basename "${source%.*}")
        case ,${CLEAVE_ONLY:-$name}, in
        *,xc,*) ;;
        *,"$name",*) lines 1 "^--- $name: status 0, " ;;
        esac
    done
    [ -n "${CLEAVE_ONLY:-}" ] || tests/answers.sh "$folder/lines" || failed=1
fi
grep -q '^verdict: pass' "$folder/lines" && [ "$status" = 0 ] || failed=1
if [ "$failed" != 0 ] || [ -n "${V:-}" ]; then
    cat "$folder/lines"
    echo "control on $1: status $status"
fi
exit "$failed"
