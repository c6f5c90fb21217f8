#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# qemu.sh [-i] [-u] [-a ACCEL] [-c WORDS] [-m SIZE] [-s CPUS] [-t SECONDS] [-x OPTION] IMAGE [MODULE...]
# Runs IMAGE on QEMU's emulated AMD machine: an ELF file by multiboot1, with its modules ("file word..."),
# or a disc (.iso). Its console goes to standard output.
#   -i  console on COM1, which reads standard input too; else it is port 0xE9, and there is no COM1
#   -u  UEFI instead of BIOS, for a disc
#   -a  accelerator (tcg,thread=single; with a thread for each CPU, QEMU 7.2 now and then takes a fetch of the
#       host for one of the guest right after an exit); with kvm the CPU is the host's own
#   -c  the command line      -m  memory (512M)      -s  CPUs (1); -smp N is the same
#   -t  time limit (60)       -x  an option for QEMU, more than one with several -x
# The status is the code with which the hypervisor stopped the machine (99: it crashed), 124 when the
# time was up, 125 when QEMU ended in another way.
set -eu

usage() { sed -n '3,13s/^# //p' "$0"; }
interactive=
uefi=
accel=tcg,thread=single
words=
memory=512M
cpus=1
seconds=60
extra=
while [ $# -gt 0 ]; do
    case $1 in
    -i) interactive=1 ;;
    -u) uefi=1 ;;
    -a | -c | -m | -s | -smp | -t | -x)
        [ $# -ge 2 ] || break
        case $1 in
        -a) accel=$2 ;;
        -c) words=$2 ;;
        -m) memory=$2 ;;
        -s | -smp) cpus=$2 ;;
        -t) seconds=$2 ;;
        -x) extra="$extra $2" ;;
        esac
        shift
        ;;
    *) break ;;
    esac
    shift
done
case ${1:--} in
-*)
    usage >&2
    exit 2
    ;;
esac
image=$1
shift

modules=
for module; do
    # A comma within a module's words is written twice.
    modules="${modules:+$modules,}$(printf %s "$module" | sed 's/,/,,/g')"
done

case $accel in
kvm*) cpu=host ;;
*) cpu=max ;;
esac
set -- -nodefaults -no-user-config -display none -no-reboot -accel "$accel" -cpu "$cpu" \
    -m "$memory" -smp "$cpus" -device isa-debug-exit,iobase=0xf4,iosize=4
if [ -n "$interactive" ]; then
    set -- "$@" -chardev stdio,id=terminal,signal=off -serial chardev:terminal # what is typed is the machine's, Ctrl-C too
else
    set -- "$@" -debugcon stdio
fi
if [ -n "$uefi" ]; then
    set -- "$@" -bios /usr/share/ovmf/OVMF.fd
fi
case $image in
*.iso) set -- "$@" -cdrom "$image" ;;
*)
    set -- "$@" -kernel "$image" -append "$words"
    if [ -n "$modules" ]; then
        set -- "$@" -initrd "$modules"
    fi
    ;;
esac

child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || :' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice
status=0
if [ -n "$interactive" ]; then
    # shellcheck disable=SC2086  # options
    timeout --foreground -k 5 "$seconds" qemu-system-x86_64 "$@" $extra || status=$?
else
    # shellcheck disable=SC2086
    timeout -k 5 "$seconds" qemu-system-x86_64 "$@" $extra </dev/null &
    child=$!
    wait "$child" || status=$?
    child=
fi
case $status in
124 | 137) exit 124 ;;
*[13579]) exit $(((status - 1) / 2)) ;;
*)
    echo "QEMU ended with status $status" >&2
    exit 125
    ;;
esac
