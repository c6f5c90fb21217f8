#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# linux-boot.sh CASE: Debian's kernel boots on the hypervisor, says nothing that its user would worry about, and
# forks itself; its memory stays in large leaves.
# linux-boot.sh --list: the cases, bochs and giant in a long check.
#
# CLEAVE_IMAGE names another image than build/gcc-release/cleave.elf. The console is printed when a case fails, or
# with V=1.
# shellcheck disable=SC2317  # functions are called by name
set -u
cd "$(dirname "$0")/.." || exit 2

folder=$(mktemp -d)
output=$folder/console
trap 'rm -rf "$folder"' EXIT
failed=0

complain() {
    echo "FAIL  $1"
    failed=1
}

# wants PATTERN [COUNT]: at least so many lines are like that (1)
wants() {
    local found
    found=$(grep -cE -- "$1" "$output")
    [ "$found" -ge "${2:-1}" ] || complain "$found lines, not ${2:-1}, are like: $1"
}

# refuses PATTERN: no line is
refuses() {
    if grep -E -- "$1" "$output"; then
        complain "a line like: $1"
    fi
}

# What Linux says of a CPU, a clock or memory that is not as it was told. What it thinks of the emulated CPU's own
# errata is not meant.
worries='WARNING|unchecked MSR|BUG:|Oops|[Ii]nconsisten|consistency problem|unstable|TSC synchronization|TSC ADJUST'
worries="$worries|good estimate|Long readout|soft lockup|self-detected|detected stalls|Call Trace|blocked for more"

# boots MACHINE MIB SECONDS "KEY=VALUE..." WORD...: one domain, with words for its kernel, on $cpus CPUs
cpus=2
boots() {
    local machine=$1 memory=$2 seconds=$3 keys=$4 status=0
    shift 4
    {
        echo "pool main size=all"
        echo "domain linux pool=main kernel=vmlinux $keys command=\"console=hvc0 loglevel=7" \
            "xen_privcmd.unrestricted=1 $*\""
        echo "option stop console=all"
    } >"$folder/boot.conf"
    [ "$machine" = bochs ] || memory=${memory}M
    "configs/$machine.sh" -m "$memory" -s "$cpus" -t "$seconds" "${CLEAVE_IMAGE:-build/gcc-release/cleave.elf}" \
        "$folder/boot.conf" build/linux/vmlinux build/linux/initrd.cpio build/linux/initrd-redis.cpio \
        >"$output" 2>&1 || status=$?
    [ "$status" = 0 ] || complain "status $status (124: its time was up)"
    wants 'verdict: pass, worst exit code 0, audits clean'
    wants 'cleave: init: done, code 0'
    if grep -E -- "$worries" "$output" | grep -v 'RETBleed: WARNING: Spectre v2 mitigation'; then
        complain "lines like these"
    fi
}

# All memory that it touched is in leaves of 2 MiB, but for two pages that are Cleave's.
case_qemu() {
    boots qemu 1024 120 'initrd=initrd.cpio memory=256M vcpus=2'
    wants 'cleave: init: [^ ]*-cloud-amd64, 2 CPUs,'
    wants 'leaves 4 KiB: 8 KiB, 2 MiB: [1-9][0-9]* KiB, 1 GiB: 0 KiB, split: 0' 2
}

# Three leaves of 1 GiB at its start; one at least is left in each child, and in the parent at its end.
case_giant() {
    boots qemu 8192 300 'initrd=initrd-redis.cpio memory=3G order=2' workload=redis size=32 seconds=2 forks=2
    wants 'init: leaves 4 KiB: 8 KiB, 2 MiB: 0 KiB, 1 GiB: 3145728 KiB, split: 0'
    wants 'child 1: leaves'
    wants 'child 2: leaves'
    wants 'parent: leaves'
    refuses 'leaves .* 1 GiB: 0 KiB'
    wants 'parent: scan of .*: right'
}

# The other machine, in a short form: more vCPUs than CPUs, and a child that finds its parent's data right.
case_bochs() {
    cpus=1
    boots bochs 1024 900 'initrd=initrd-redis.cpio memory=256M vcpus=2' \
        workload=redis size=4 seconds=1 forks=1 writes=100
    wants 'cleave: init: [^ ]*-cloud-amd64, 2 CPUs,'
    wants 'child 1: scan of .*: right'
    wants 'parent: scan of .*: right'
}

if [ "${1:-}" = --list ]; then
    echo qemu
    [ -z "${CLEAVE_LONG:-}" ] || printf 'bochs\ngiant\n'
    exit 0
fi
declare -F "case_${1:-}" >/dev/null || exit 2
"case_$1"
if [ "$failed" != 0 ] || [ -n "${V:-}" ]; then
    cat "$output"
fi
exit "$failed"
