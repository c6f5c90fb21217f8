#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# linux.sh CASE: what boots as a Linux guest, tried without a hypervisor: the kernel taken out of Debian's image,
# its initrds, and the workload of tests/system/linux/, whose checks must find what is wrong and only that.
# linux.sh --list names the cases.
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

wants() { # wants PATTERN: a line that must be there
    grep -qE -- "cleave: $1" "$output" || complain "no line like: $1"
}

# Boots an initrd on a machine of QEMU's own, with words for init, until it powers off.
boots() { # boots INITRD WORD...
    local initrd=$1 status=0
    shift
    timeout -k 5 120 qemu-system-x86_64 -nodefaults -no-user-config -accel tcg -cpu max -m 256 -display none \
        -no-reboot -serial stdio -kernel build/linux/vmlinux -initrd "build/linux/$initrd" \
        -append "console=ttyS0 panic=-1 $*" </dev/null >"$output" 2>&1 || status=$?
    sed -n 's/.*\(cleave: .*\)/\1/p' "$output"
    if [ "$status" != 0 ] || ! grep -q 'reboot: Power down' "$output"; then
        tail -n 20 "$output"
        complain "no power-off: status $status"
    fi
}

# Plays the workload with 8 MiB; further words decide on the role.
plays() {
    boots initrd-redis.cpio workload=redis size=8 seconds=1 writes=300 "$@"
    wants 'workload: 2065 records of 4064 bytes.$'
}

# refuses IMAGE PATTERN: vmlinux.sh does, for that reason, and leaves nothing behind
refuses() {
    if configs/vmlinux.sh "$1" "$folder/out" 2>"$output"; then
        complain "$1 is accepted"
    fi
    cat "$output"
    grep -q -- "$2" "$output" || complain "it does not say: $2"
    [ ! -e "$folder/out" ] || complain "$1: a file is left behind"
}

number() { # number VALUE: 32 bits, little-endian
    local shift
    for shift in 0 8 16 24; do
        # shellcheck disable=SC2059  # a byte
        printf "\\x$(printf %02x $(($1 >> shift & 255)))"
    done
}

# An image of $folder/payload, compressed, with the fields of the header that are read.
make_image() { # make_image SIZE COMPRESSOR...: SIZE is what the image says of the unpacked size
    local size=$1
    shift
    "$@" <"$folder/payload" >"$folder/packed"
    {
        head -c 497 /dev/zero
        printf '\001'
        head -c 16 /dev/zero
        printf 'HdrS\017\002'
        head -c 64 /dev/zero
        number 0
        number $(($(wc -c <"$folder/packed") + 4))
        head -c 432 /dev/zero
        cat "$folder/packed"
        number "$size"
    } >"$folder/image"
}

case_refuse() {
    local image
    image=$(echo build/debian/linux-image-cloud-amd64/boot/vmlinuz-*)
    refuses LICENSE 'no setup header'
    head -c 1000000 "$image" >"$folder/cut"
    refuses "$folder/cut" 'cut short'
    # A byte in the middle of the compressed kernel.
    { head -c 4000000 "$image" && printf 'cleave' && tail -c +4000007 "$image"; } >"$folder/spoilt"
    refuses "$folder/spoilt" 'cannot be unpacked\|another size\|no 64-bit ELF'
    local guest=build/guests/hello.elf size
    size=$(wc -c <"$guest")
    cp "$guest" "$folder/payload"
    make_image 12345 xz -c --check=crc32
    refuses "$folder/image" 'another size than 12345'
    make_image "$size" gzip -c
    refuses "$folder/image" 'unknown here'
    make_image "$size" xz -c --check=crc32
    configs/vmlinux.sh "$folder/image" "$folder/kernel"
    cmp "$folder/payload" "$folder/kernel" || complain "a good image is refused"
    cp /bin/true "$folder/payload"
    make_image "$(wc -c </bin/true)" lz4 -l -c
    refuses "$folder/image" 'no 64-bit ELF kernel with the note'
}

case_init() {
    boots initrd.cpio
    wants 'init: [0-9.]*-.*-cloud-amd64, 1 CPUs, '
    wants 'init: cleave-guest: no identity page.$'
    wants 'init: done, code 0.$'
}

# prints WHICH ROLE: the "head" or "tail" of the lines in which a role says how a check ended, without the role
prints() { sed -n "s/.*cleave: $2: \(.* writes: .*[^\r]\)\r*\$/\1/p" "$output" | "$1" -n 1; }

# Compares what the first check and the last have said with a pattern for each.
ended() { # ended ROLE FIRST LAST
    prints head "$1" | grep -qE "^$2\$" || complain "the first check did not say: $2"
    prints tail "$1" | grep -qE "^$3\$" || complain "the last check did not say: $3"
}

case_parent() {
    plays pretend=0 flip=2064
    wants 'parent: forked after [1-9][0-9]* to [1-9][0-9]* writes.$'
    wants 'parent: [1-9][0-9]* writes, '
    ended parent 'scan of 2065 records after [1-9][0-9]* writes: right' \
        'scan of 2065 records after [1-9][0-9]* writes: 1 WRONG'
    wants 'init: done, code 1.$'
}

case_child() {
    plays pretend=2 check=digest flip=0
    wants 'child 2: index 2 count 5 domain 7 generation 616e6f746865722d6e756d6265722d2d data 0.$'
    ended 'child 2' 'digest [0-9a-f]{40} after [1-9][0-9]* writes: right' \
        'digest [0-9a-f]{40} after [1-9][0-9]* writes: WRONG'
    wants 'init: done, code 1.$'
}

# The writer has stopped by itself; the child's own writes are found with its parent's.
case_sample() {
    plays pretend=6
    wants 'child 6: 300 writes, '
    local first last
    first=$(prints head 'child 6' | sed -n 's/^sample 6, .* after \(.*\) writes: right$/\1/p')
    last=$(prints tail 'child 6' | sed -n 's/^sample 6, .* after \(.*\) writes: right$/\1/p')
    [ "$((first + 300))" = "${last:-none}" ] || complain "300 writes after ${first:-none} make ${last:-none}"
    wants 'init: done, code 0.$'
}

case_job() {
    plays pretend=3 job=1
    ended 'child 3' 'job with salt 7, records .* after [1-9][0-9]* writes: right' 'job .*: right'
    wants 'init: done, code 0.$'
}

# A fork that is refused is a failure.
case_no_fork() {
    plays forks=1
    wants 'no fork: cleave-guest: no identity page.$'
    wants 'init: done, code 1.$'
}

if [ "${1:-}" = --list ]; then
    sed -n 's/^case_\([a-z_]*\)().*/\1/p' "$0" | tr _ -
    exit 0
fi
name=case_$(printf %s "${1:-}" | tr - _)
declare -F "$name" >/dev/null || exit 2
"$name"
exit "$failed"
