#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# hypervisor.sh: what operations of the hypervisor cost in instructions, as lines "figure NAME VALUE UNIT". Boots
# tests/guests/bench/ on QEMU with one CPU and -icount shift=0, where a difference of the TSC is a count of
# instructions, two times; without RDRAND, and with a clock that goes with the instructions, the frames that the
# hypervisor picks at random are the same. It fails when the two runs differ in any figure, or when there is none.
# CLEAVE_IMAGE names another image than build/gcc-release/cleave.elf.
set -eu
cd "$(dirname "$0")/../.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for run in 1 2; do
    status=0
    configs/qemu.sh -a tcg -x "-icount shift=0,sleep=off" -x "-cpu max,rdrand=off,rdseed=off" \
        -x "-rtc base=2026-01-01,clock=vm" -m 2048M -s 1 -t 300 \
        "${CLEAVE_IMAGE:-build/gcc-release/cleave.elf}" tests/guests/bench/boot.conf \
        build/guests/bench.elf >"$folder/console" 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        cat "$folder/console" >&2
        echo "the machine ended with status $status" >&2
        exit 1
    fi
    sed -n 's/^bench: \(figure .*\)$/\1/p' "$folder/console" >"$folder/$run"
done
if ! diff "$folder/1" "$folder/2" >&2; then
    echo "two runs in a row gave different figures" >&2
    exit 1
fi
cat "$folder/1"
grep -q '^figure ' "$folder/1"
