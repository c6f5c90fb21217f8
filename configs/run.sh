#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# run.sh [-a FOLDER] [-d] [-f RECORD] [-g GUEST] [-n FORKS] [-z MIB] [qemu|bochs]: boots the hypervisor with a guest
# that is forked while it is written to, and a table of its domains. On QEMU (the default) with nested KVM where this CPU
# offers it, else emulated (AMD), a control domain forks it; on Bochs (Intel EPT) it forks itself, and has less memory.
# The status is 0 when the machine's verdict was "pass": parent, children and the guest that was never forked found
# their data right.
#   -a  this folder is /files in the control domain
#   -d  unattended, although on a terminal; else there, on QEMU, the control domain has a prompt after the demo
#   -f  the second child flips a bit of this record of its data, which it must find: the status is not 0
#   -g  linux: Debian's kernel with a redis server (tests/system/linux/), and beside it one that is never forked
#       tiny: the kernel of tests/guests/demo/, which draws a table of its own
#   -n  forks of the Linux guest (8; on Bochs 2)      -z  MiB of data (256; on Bochs 32, tiny 64)
# run.sh --accel: which accelerator QEMU would get, "kvm" or "tcg", and why.
set -eu
cd "$(dirname "$0")/.."

usage() {
    sed -n '3,14s/^# //p' "$0" >&2
    exit 2
}

# KVM runs a hypervisor only where the CPU has SVM or VMX, its module is told to nest, and the device opens.
choose_accel() {
    device=${CLEAVE_KVM:-/dev/kvm}
    flag=$(sed -n 's/^flags.* \(svm\|vmx\)\( .*\|\)$/\1/p' "${CLEAVE_CPUINFO:-/proc/cpuinfo}" | head -n 1)
    case $flag in
    svm) module=kvm_amd ;;
    vmx) module=kvm_intel ;;
    *)
        why="this CPU shows neither svm nor vmx"
        return
        ;;
    esac
    case $(cat "${CLEAVE_MODULES:-/sys/module}/$module/parameters/nested" 2>/dev/null || :) in
    1 | Y | y) ;;
    *)
        why="$module does not nest"
        return
        ;;
    esac
    if ! { [ -w "$device" ] && (: <"$device") 2>/dev/null; }; then
        why="$device cannot be opened"
        return
    fi
    accel=kvm
    why="$flag, nested"
}
accel=tcg,thread=single
choose_accel
if [ "${1:-}" = --accel ]; then
    echo "${accel%%,*}: $why"
    exit 0
fi

guest=linux
unattended=
flip=
forks=
size=
files=
while getopts a:df:g:n:z: option; do
    case $option in
    a) files=$OPTARG ;;
    d) unattended=1 ;;
    f) flip=$OPTARG ;;
    g) guest=$OPTARG ;;
    n) forks=$OPTARG ;;
    z) size=$OPTARG ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
if [ -n "$files" ] && ! [ -d "$files" ]; then
    echo "run.sh: -a $files (make: FILES): this is no folder" >&2
    exit 2
fi
machine=${1:-qemu}
case $machine-$guest in
qemu-linux) defaults="8 256 2 3584 900" ;;
bochs-linux) defaults="2 32 1 1024 2400" ;;
qemu-tiny) defaults="0 256 2 1024 300" ;;
bochs-tiny) defaults="0 64 1 512 600" ;;
*) usage ;;
esac
# shellcheck disable=SC2086  # numbers
set -- $defaults
forks=${forks:-$1}
size=${size:-$2}
cpus=$3
memory=$4
seconds=$5

screen=
if [ -t 1 ]; then
    screen=terminal
fi
if ! [ -t 0 ] || ! [ -t 1 ] || [ "$machine-$guest" != qemu-linux ]; then
    unattended=1
fi

folder=$(mktemp -d)
child=
# shellcheck disable=SC2317  # called by trap
finish() {
    [ -z "$child" ] || kill "$child" 2>/dev/null || :
    rm -rf "$folder"
    if [ -n "$screen" ]; then
        printf '\0337\033[r\0338' # all of it scrolls again, however the machine ended
    fi
}
trap finish EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM

# The kernel takes several archives in a row as one file system.
add_files() {
    [ -n "$files" ] || return 0
    mkdir "$folder/tree"
    cp -R "$files" "$folder/tree/files"
    (cd "$folder/tree" && find . | LC_ALL=C sort | cpio --quiet -R 0:0 -H newc -o) >>"$folder/initrd-control.cpio"
}

# The boot configuration and the files that it names, as the arguments.
case $guest in
linux)
    words="loglevel=5 console=hvc0 nopvspin workload=redis size=$size seconds=3 writes=200 xen_privcmd.unrestricted=1"
    guests="pool=main kernel=vmlinux initrd=initrd-redis.cpio memory=$((size * 5 / 4 + 192))M order=1"
    play="first=sample${flip:+ flip=$flip flipper=2}"
    period=10
    control=
    set -- build/linux/vmlinux build/linux/initrd-redis.cpio
    if [ "$machine" = bochs ]; then
        screen= # its console comes line by line
        play="$play forks=$forks children=wait"
    else
        play="$play forks=noticed"
        control="demo=$forks"
        if [ -z "$unattended" ]; then
            play="$play again"
            control="$control shell"
            console="control input=control"
        fi
        control="domain control pool=main kernel=vmlinux-control initrd=initrd-control.cpio memory=512M order=2 control \
command=\"loglevel=4 console=hvc0 nopvspin $control\""
        set -- "$@" build/linux/vmlinux-control "$folder/initrd-control.cpio"
        cp build/linux/initrd-control.cpio "$folder/initrd-control.cpio"
        add_files
        if [ -n "$screen" ]; then
            period=2
        fi
    fi
    cat >"$folder/boot.conf" <<END
pool main size=all
$control
domain template $guests command="$words $play"
domain alone $guests command="$words"
option console=${console:-all} $screen top=$period stop
END
    ;;
tiny)
    play="$screen size=$size"
    if [ "$machine" = bochs ]; then
        play="$play seconds=5"
    fi
    cat >"$folder/boot.conf" <<END
pool main size=all
domain demo pool=main kernel=demo.elf memory=64M order=1 command="$play"
option stop
END
    set -- build/guests/demo.elf
    ;;
esac
set -- build/gcc-release/cleave.elf "$folder/boot.conf" "$@"

status=0
case $machine in
qemu)
    echo "QEMU with ${accel%%,*} ($why), $cpus CPUs, $memory MiB:"
    set -- -a "$accel" -m "${memory}M" -s "$cpus" "$@"
    ;;
bochs)
    echo "Bochs, an Intel machine with EPT, $cpus CPU, $memory MiB:"
    set -- -m "$memory" -s "$cpus" "$@"
    ;;
esac
if [ -n "$unattended" ]; then
    "configs/$machine.sh" -t "$seconds" "$@" &
    child=$!
    wait "$child" || status=$?
    child=
else
    configs/qemu.sh -i -t 86400 "$@" || status=$? # reads what is typed, so not in the background
fi
if [ "$status" != 0 ]; then
    echo "The machine ended with status $status (docs/boot.md says what that means)." >&2
fi
exit "$status"
