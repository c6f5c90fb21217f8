#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# boot.sh CASE: boots the test kernel of tests/boot/ on an emulated machine; prints its console and what
# it lacks. boot.sh --list names the cases. Those named crash-* end in a crash, which must be reported.
set -u
cd "$(dirname "$0")/.." || exit 2

image=build/gcc-debug/boottest.elf
module=LICENSE
size=$(wc -c <$module)
sum=$(od -An -v -tu1 $module | awk '{ for (i = 1; i <= NF; i++) sum += $i } END { print sum }')

output=$(mktemp)
disc=$(mktemp --suffix=.iso)
trap 'rm -f "$output" "$disc"' EXIT

failed=0
wants() { # wants PATTERN: a line that must be there
    if ! grep -qE -- "$1" "$output"; then
        echo "FAIL  no line like: $1"
        failed=1
    fi
}

# ends_with STATUS COMMAND...: the console is in $output
ends_with() {
    local wanted=$1 status=0
    shift
    "$@" >"$output" 2>&1 || status=$?
    cat "$output"
    if [ "$status" != "$wanted" ]; then
        echo "FAIL  status $status instead of $wanted"
        failed=1
    fi
}

# passes CPUS LOADER COMMAND...: the test kernel is content
passes() {
    local cpus=$1 loader=$2
    shift 2
    ends_with 0 "$@"
    wants "^boottest: loader $loader, command line \"some words\", rsdp [1-9a-f]"
    wants "^boottest: module $module, $size bytes, sum $sum\$"
    wants "^cpus: $cpus\$"
    wants '^boottest: 0 failed$'
    # What is printed of the RAM adds up to it, and to what is said of it.
    awk '
        /^memory: .* of RAM/ { ram = $2 }
        /^  [0-9a-f]+ - / { all += $4; if ($NF == "free") free += $4; if ($0 ~ /left out/) bad = 1 }
        /^memory: .* used/ { used = $2; said = $5 }
        END { exit bad || ram == 0 || all != ram || free != said || used + said != ram }' "$output" || {
        echo "FAIL  the map of memory does not add up"
        failed=1
    }
    return $failed
}

# crashes WORD PATTERN...: with lines that must be in the report
crashes() {
    local word=$1
    shift
    ends_with 99 configs/qemu.sh -a tcg,thread=multi -smp 3 -c "$word" $image
    wants '^CRASH on CPU 0: '
    wants '^  rax [0-9a-f]{16}  rbx '
    wants ' start_on_stack\+0x'
    wants '^  CPU 1: idle '
    wants '^  CPU 2: idle '
    wants '^machine: stop 99$'
    for pattern; do
        wants "$pattern"
    done
    return $failed
}

qemu() { configs/qemu.sh -c "some words" "$@" $image "$module some words"; }
disc() { configs/iso.sh -c "some words" "$disc" $image "$module some words"; }

run_case() {
    case $1 in
    one-cpu) passes 1 multiboot1 qemu ;;
    four-cpus-6g) passes 4 multiboot1 qemu -smp 4 -m 6G ;;
    sixteen-cpus) passes 16 multiboot1 qemu -smp 16 ;;
    no-1g-pages) passes 1 multiboot1 qemu -m 5G -x "-cpu max,pdpe1gb=off" ;;
    no-rdrand)
        passes 1 multiboot1 qemu -x "-cpu max,rdrand=off"
        wants '^random: no RDRAND'
        ;;
    com1)
        ends_with 0 configs/qemu.sh -i $image
        wants '^boottest: 0 failed.$' # a carriage return
        ;;
    no-acpi)
        ends_with 0 configs/qemu.sh -smp 2 -x -no-acpi $image
        wants '^acpi: no tables found$'
        wants '^cpus: 1$'
        ;;
    old-cpu)
        ends_with 124 configs/qemu.sh -t 3 -x "-cpu qemu32" $image
        wants '^Cleave: this CPU has no 64-bit mode\.$'
        ;;
    no-nx)
        ends_with 124 configs/qemu.sh -t 3 -x "-cpu max,nx=off" $image
        wants '^Cleave: this CPU has no NX bit'
        ;;
    grub-bios) disc && passes 2 multiboot2 configs/qemu.sh -smp 2 -m 1G "$disc" ;;
    grub-uefi) disc && passes 2 multiboot2 configs/qemu.sh -u -smp 2 -m 1G "$disc" ;;
    bochs) passes 1 multiboot2 configs/bochs.sh -t 300 -c "some words" $image $module ;;
    bochs-x2apic)
        ends_with 0 configs/bochs.sh -t 300 -smp 2 -c x2apic $image
        wants '^boottest: x2APIC in use$'
        wants '^cpus: 2$'
        ;;
    bochs-two-cpus) passes 2 multiboot2 configs/bochs.sh -t 300 -smp 2 -c "some words" $image $module ;;
    crash-called) crashes crash 'asked for, with words and 42$' ' crash\+0x' ;;
    crash-check) crashes panic 'tests/boot/boot_main.c:[0-9]+: boot_info.cpus == 0$' ' port_panic\+0x' ;;
    crash-null) crashes null '#PF page fault, error 2, write of 0000000000000000$' ;;
    crash-text) crashes write-text '#PF page fault, error 3, write of ffffffff80100000$' ;;
    crash-rodata) crashes write-rodata '#PF page fault, error 3, write of ffffffff' ;;
    crash-alias) crashes write-alias '#PF page fault, error 3, write of ffff800000100000$' ;;
    crash-data) crashes execute-data '#PF page fault, error 11, execution of ffffffff' ;;
    crash-stack)
        ends_with 99 configs/qemu.sh -c stack $image
        wants '#DF double fault' && wants ' overflow\+0x'
        ;;
    crash-opcode) crashes ud '#UD invalid opcode' ;;
    crash-nmi) crashes nmi ': NMI' ;;
    crash-others-stuck) crashes stuck ' kernel_main_cpu\+0x' ;;
    *) exit 2 ;;
    esac
    return $failed
}

if [ "${1:-}" = --list ]; then
    sed -n 's/^    \([a-z0-9-]*\)).*/\1/p' "$0"
    exit 0
fi
run_case "${1:-}"
