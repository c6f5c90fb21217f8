#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# bochs.sh [-c WORDS] [-m MIB] [-p MODEL] [-s CPUS] [-t SECONDS] IMAGE [MODULE...]
# Runs IMAGE, an ELF file with its modules ("file word..."), on Bochs: an emulated Intel machine that boots
# it with GRUB from a disc. Its console (port 0xE9) goes to standard output.
#   -c  the command line      -m  memory (512)       -p  CPU model (corei7_skylake_x)
#   -s  CPUs (1); -smp N is the same                 -t  time limit (120)
# The status is the code with which the hypervisor stopped the machine (99: it crashed), 124 when the
# time was up, 125 when Bochs ended in another way.
set -eu

usage() { sed -n '3,9s/^# //p' "$0"; }
words=
memory=512
cpus=1
model=corei7_skylake_x
seconds=120
while [ $# -gt 1 ]; do
    case $1 in
    -c) words=$2 ;;
    -m) memory=$2 ;;
    -p) model=$2 ;;
    -s | -smp) cpus=$2 ;;
    -t) seconds=$2 ;;
    *) break ;;
    esac
    shift 2
done
case ${1:--} in
-*)
    usage >&2
    exit 2
    ;;
esac

bios=/usr/share/bochs/BIOS-bochs-latest # 128 KiB, at 0xe0000
folder=$(mktemp -d)
child=
# shellcheck disable=SC2317  # called by trap
finish() {
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null || :
        wait "$child" 2>/dev/null || :
    fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice

"$(dirname "$0")/iso.sh" -b -c "$words" "$folder/boot.iso" "$@"
host=$memory
if [ "$host" -gt 1024 ]; then
    host=1024 # the rest goes through a file
fi
cat >"$folder/bochsrc" <<END
config_interface: textconfig
display_library: rfb, options="timeout=0"
cpu: model=$model, count=$cpus, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest=$memory, host=$host
romimage: file=$bios
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$folder/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=null
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
port_e9_hack: enabled=1
panic: action=fatal
error: action=ignore
info: action=ignore
log: $folder/log
END
# The firmware waits three seconds for a key, most of what a boot takes here. The debugger, which waits for commands
# anyway, steps over that call of the firmware's, where it finds it.
at=$(LC_ALL=C grep -obUaP '\xb8\x05\x00\x50\xb8\x0b\x00\x50\xe8..\x83\xc4\x04' "$bios" | head -n 1 | cut -d: -f 1)
if [ -n "$at" ]; then
    printf 'lb 0x%x\nc\nset eip = 0x%x\nd 1\nc\n' $((0xe0000 + at)) $(((at + 14) & 0xffff)) >"$folder/start"
else
    echo c >"$folder/start"
fi
mkfifo "$folder/console"
timeout -k 5 "$seconds" bochs -q -f "$folder/bochsrc" -rc "$folder/start" \
    </dev/null >"$folder/console" 2>"$folder/errors" &
child=$!

verdict=
began=
while IFS= read -r line; do
    case $line in
    Cleave*) began=1 ;; # before that it is Bochs that speaks
    esac
    if [ -n "$began" ]; then
        printf '%s\n' "$line"
    fi
    case $line in
    "machine: stop "*)
        verdict=${line#machine: stop }
        break
        ;;
    esac
done <"$folder/console"
if [ -n "$verdict" ]; then
    exit "$verdict"
fi
status=0
wait "$child" || status=$?
child=
if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    exit 124
fi
echo "Bochs ended with status $status:" >&2
tail -n 5 "$folder/log" "$folder/errors" >&2
exit 125
