#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# spec.sh MACHINE SEED: the randomized run beside the reference (tests/spec/) on an emulated machine and in a
# process, and whether both print the same trace (tests/trace/). MACHINE is "qemu" (AMD), "bochs" (Intel),
# or "shipped": the image that ships, on QEMU. It passes when both runs ended well and every line that is
# due is there and the same. spec.sh --list: MACHINE.SEED of a check; of a long one with CLEAVE_LONG=1.
#   CLEAVE_STEPS  steps       CLEAVE_EVERY  steps between two lines (50); 1 finds the step that differs
#   CLEAVE_IMAGE  another image
set -u
cd "$(dirname "$0")/.." || exit 2

if [ "${1:-}" = --list ]; then
    printf '%s\n' qemu.{1..4} shipped.5 bochs.1
    if [ -n "${CLEAVE_LONG:-}" ]; then
        echo "qemu.$((10#$(date +%s)))" # a new one each time; its name repeats it
        printf '%s\n' qemu.{6..9} shipped.10 bochs.2
    fi
    exit 0
fi

machine=${1:-}
seed=${2:-}
every=${CLEAVE_EVERY:-50}
steps=2000
variant=gcc-debug
entries=npt
case $machine in
qemu) ;;
shipped) variant=gcc-release ;;
bochs)
    steps=300
    entries=ept
    ;;
*)
    echo "spec.sh: no machine $machine" >&2
    exit 2
    ;;
esac
if [ -n "${CLEAVE_LONG:-}" ]; then
    steps=$((steps * 5))
fi
steps=${CLEAVE_STEPS:-$steps}
words="$entries seed=$seed steps=$steps every=$every"
image=${CLEAVE_IMAGE:-build/$variant/trace.elf}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# ends_well NAME COMMAND...: its lines of the trace are in $folder/NAME; else all it printed is shown
ends_well() {
    local name=$1 status=0
    shift
    "$@" >"$folder/console" 2>&1 || status=$?
    grep '^trace: ' "$folder/console" | tr -d '\r' >"$folder/$name"
    if [ "$status" != 0 ]; then
        cat "$folder/console"
        echo "the $name run ended with status $status"
        failed=1
    fi
}

ends_well hosted timeout $((200 + steps / 10)) "build/$variant/trace/hosted" "$words"
case $machine in
qemu | shipped) ends_well machine configs/qemu.sh -s 4 -t $((200 + steps / 10)) -c "$words" "$image" ;;
bochs) ends_well machine configs/bochs.sh -s 4 -t $((300 + 2 * steps)) -c "$words" "$image" ;;
esac

# Lines that are due: one for each `every` steps, and two at the end.
due=$((steps / every + 2))
for run in hosted machine; do
    lines=$(wc -l <"$folder/$run")
    if [ "$lines" != "$due" ]; then
        echo "the $run run printed $lines lines instead of $due"
        failed=1
    fi
done
paste -d '|' "$folder/hosted" "$folder/machine" | awk -F '|' -v seed="$seed" '
    $1 != $2 {
        step = "the end"
        if (split($1, word, " ") == 7) {
            step = "step " word[5]
        }
        sub(/^trace: seed [0-9]* (step [0-9]* state|ends:) /, "", $1)
        sub(/^trace: seed [0-9]* (step [0-9]* state|ends:) /, "", $2)
        print "traces differ at " step " of seed " seed ": hosted " $1 ", machine " $2
        differ = 1
        exit
    }
    END { exit differ }' || failed=1
if [ $failed = 0 ]; then
    tail -n 2 "$folder/hosted"
    echo "the same in a process and on $machine: $due lines"
fi
exit $failed
