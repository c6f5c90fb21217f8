#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# run.sh [qemu|bochs]: boots the hypervisor with the guest of tests/guests/demo/, which forks and shows a table
# of its domains while they write. On QEMU (the default) with nested KVM where this CPU offers it, else emulated
# (AMD); on Bochs (Intel EPT) with less memory and a shorter run.
# run.sh --accel: which accelerator QEMU would get, "kvm" or "tcg", and why.
# The status is 0 when the machine's verdict was "pass".
set -eu
cd "$(dirname "$0")/.."

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

folder=$(mktemp -d)
child=
# shellcheck disable=SC2317  # called by trap
finish() {
    [ -z "$child" ] || kill "$child" 2>/dev/null || :
    rm -rf "$folder"
}
trap finish EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM
words=
if test -t 1; then
    words=terminal
fi
case ${1:-qemu} in
qemu) words="$words size=256" ;;
bochs) words="$words size=64 seconds=5" ;;
*)
    sed -n '3,7s/^# //p' "$0" >&2
    exit 2
    ;;
esac
cat >"$folder/boot.conf" <<END
pool main size=all
domain demo pool=main kernel=demo.elf memory=64M order=1 command="$words"
option stop
END
set -- "${1:-qemu}" build/gcc-release/cleave.elf "$folder/boot.conf" build/guests/demo.elf
machine=$1
shift
case $machine in
qemu)
    echo "QEMU with ${accel%%,*} ($why), 2 CPUs, 1 GiB:"
    configs/qemu.sh -a "$accel" -m 1G -s 2 -t 300 "$@" &
    ;;
bochs)
    echo "Bochs, an Intel machine with EPT, 1 CPU, 512 MiB:"
    configs/bochs.sh -m 512 -s 1 -t 600 "$@" &
    ;;
esac
child=$!
status=0
wait "$child" || status=$?
child=
if [ "$status" != 0 ]; then
    echo "The machine ended with status $status (docs/boot.md says what that means)." >&2
fi
exit "$status"
