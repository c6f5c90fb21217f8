#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# guests.sh MACHINE STORY: boots the hypervisor with one story of tests/guests/ on "qemu" (AMD) or
# "bochs" (Intel). It passes when every guest of the story ended well, every audit was clean and all
# memory came back: the hypervisor says "verdict: pass" and stops with code 0.
# guests.sh --list: those of a check, or with CLEAVE_LONG=1 of a long one, as MACHINE.STORY.
#
# A story's boot.conf may begin with a line "#: KEY=VALUE ..." for the machine that it needs:
#   memory=MIB (512)  cpus=N (2)  seconds=N (120)  machines=qemu,bochs (both; none: another
#   check boots it)  long=MACHINE (none: there in long checks only)  words=WORD (none: of the
#   hypervisor's command line)  lost=N (0: so many ends are triple faults or by the debug console, all
#   others good; the verdict, which is a failure for these, must be so for no other reason)
# A file "script" beside it holds lines for the debug console.
# CLEAVE_IMAGE names another image than build/gcc-debug/cleave.elf; its console is printed when the
# story fails, or with V=1.
set -eu
cd "$(dirname "$0")/.."

setting() { # setting STORY KEY DEFAULT
    value=$(sed -n "1,2s/^#:.*[ ]$2=\([^ ]*\).*/\1/p" "tests/guests/$1/boot.conf" | head -n 1)
    echo "${value:-$3}"
}

if [ "${1:-}" = --list ]; then
    for conf in tests/guests/*/boot.conf; do
        story=$(basename "$(dirname "$conf")")
        for machine in $(setting "$story" machines qemu,bochs | tr , ' '); do
            if [ "$machine" != none ] && { [ -n "${CLEAVE_LONG:-}" ] || [ "$machine" != "$(setting "$story" long none)" ]; }; then
                echo "$machine.$story"
            fi
        done
    done
    exit 0
fi

machine=$1
story=$2
image=${CLEAVE_IMAGE:-build/gcc-debug/cleave.elf}
memory=$(setting "$story" memory 512)
cpus=$(setting "$story" cpus 2)
seconds=$(setting "$story" seconds 120)
words=$(setting "$story" words "")
lost=$(setting "$story" lost 0)
console=$(mktemp)
trap 'rm -f "$console"' EXIT

set -- "$image" "tests/guests/$story/boot.conf"
kernels=$(sed -n 's/^domain .*kernel=\([^ ]*\).*/\1/p' "tests/guests/$story/boot.conf" | sort -u)
for kernel in $kernels; do
    set -- "$@" "build/guests/$kernel"
done
if [ -f "tests/guests/$story/script" ]; then
    set -- "$@" "tests/guests/$story/script"
fi
status=0
case $machine in
qemu) configs/qemu.sh -c "$words" -m "${memory}M" -s "$cpus" -t "$seconds" "$@" >"$console" 2>&1 || status=$? ;;
bochs) configs/bochs.sh -c "$words" -m "$memory" -s "$cpus" -t "$((seconds * 2))" "$@" >"$console" 2>&1 || status=$? ;;
*)
    echo "guests.sh: no machine $machine" >&2
    exit 2
    ;;
esac

passes() {
    if [ "$lost" = 0 ]; then
        [ "$status" = 0 ] && grep -q '^verdict: pass' "$console"
        return
    fi
    [ "$status" = 100 ] && grep -q '^verdict: fail, worst exit code 100, audits clean' "$console" &&
        awk -v lost="$lost" '
            !/^domain [0-9]+ [^ ]+: / || /: exited, code 0[^0-9]*$/ { next }
            /: (triple fault|destroyed), code / { count++; next }
            { bad = 1 }
            END { exit bad || count != lost }' "$console"
}

if ! passes; then
    cat "$console"
    echo "$story on $machine: status $status (124: its $seconds seconds were over)"
    exit 1
fi
if [ -n "${V:-}" ]; then
    cat "$console"
fi
