#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# linux.sh: what a fork of a Linux guest costs in instructions, and what an idle child takes, as lines "figure NAME
# VALUE UNIT". Boots Debian's kernel with 256 MiB and with 1 GiB of memory on QEMU with one CPU and -icount shift=0,
# where a difference of the TSC is a count of instructions; it forks itself once. CLEAVE_IMAGE names another image
# than build/gcc-release/cleave.elf.
set -eu
cd "$(dirname "$0")/../.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# boots SIZE: the lines "NAME VALUE" of a guest with that much memory go to $folder/SIZE
boots() {
    status=0
    cat >"$folder/boot.conf" <<END
pool main size=all
domain linux pool=main kernel=vmlinux initrd=initrd.cpio memory=$1 order=2 vcpus=1 command="loglevel=5 console=hvc0 nopvspin workload=fork xen_privcmd.unrestricted=1"
option stop console=all
END
    configs/qemu.sh -a tcg -x "-icount shift=0,sleep=off" -x "-cpu max,rdrand=off,rdseed=off" \
        -x "-rtc base=2026-01-01,clock=vm" -m 3G -s 1 -t 300 \
        "${CLEAVE_IMAGE:-build/gcc-release/cleave.elf}" "$folder/boot.conf" \
        build/linux/vmlinux build/linux/initrd.cpio >"$folder/console" 2>&1 || status=$?
    sed -n 's/.*cleave: measured: \([a-z0-9_.]* [0-9]*\).*/\1/p' "$folder/console" >"$folder/$1"
    if [ "$status" != 0 ] || ! grep -q '^causes.free ' "$folder/$1"; then
        tail -n 40 "$folder/console" >&2
        echo "the machine ended with status $status" >&2
        exit 1
    fi
}

for size in 256M 1G; do
    boots $size
    # Of the tables copied, all but 3 map a 2 MiB block each that the parent had split already: those of 512 GiB, of
    # the first 1 GiB, and of that with the hypervisor's pages.
    awk -v size="$(echo $size | tr MG mg)" -v upper=3 '
        { v[$1] = $2 }
        function figure(name, value, unit) { printf "figure hv.linux.%s.%s %d %s\n", size, name, value, unit }
        function huge(at) {
            large = v[at ".mapped_2m"] + v[at ".mapped_1g"]
            return 100 * large / (large + v[at ".mapped_4k"])
        }
        END {
            figure("fork", v["start.ticks"] - 512 * (v["start.copied"] + v["start.zeroed"]), "instructions")
            figure("fork.entry", v["entry.ticks"] - 512 * (v["entry.copied"] + v["entry.zeroed"]), "instructions")
            figure("fork.copied", 4096 * v["start.copied"], "bytes")
            figure("fork.zeroed", 4096 * v["start.zeroed"], "bytes")
            figure("stood_still", v["parent.stood_still"], "ns")
            figure("100ms.faults", v["100ms.faults"], "faults")
            figure("100ms.copied", v["100ms.copied"], "bytes")
            figure("100ms.zeroed", v["100ms.zeroed"], "bytes")
            figure("100ms.tables_copied", v["100ms.tables_copied"], "tables")
            figure("100ms.blocks_split", v["100ms.blocks_split"], "blocks")
            figure("100ms.given_back", v["100ms.reused"], "leaves")
            figure("fork.huge", huge("before"), "%")
            figure("100ms.huge", huge("100ms"), "%")
            figure("idle_memory", v["1s.charged"], "bytes")
            own = v["1s.copied"] + v["1s.zeroed"]
            blocks = v["1s.blocks_split"] + v["1s.tables_copied"] - upper
            figure("idle_overhead", v["1s.charged"] - own - 4096 * blocks, "bytes")
            figure("idle_blocks", blocks, "blocks")
            figure("idle_faults", v["1s.faults"], "faults")
            for (name in v) {
                if (name ~ /^causes\./) {
                    figure("idle_pages" substr(name, 7), v[name], "pages")
                }
            }
        }' "$folder/$size"
done
