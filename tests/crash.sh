#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# crash.sh [CORE]: crash(8) opens what `cleave dump` writes of a fork of a Linux with a redis server, by the symbols of
# Debian's kernel, and finds in it what the guest itself said that it runs (tests/system/control/crash.sh). The core
# leaves the machine by its memory, which is a file here (tests/system/control/carry.c). With CORE that one is opened,
# and no machine booted. What crash said is printed when something failed, or with V=1.
set -u
cd "$(dirname "$0")/.." || exit 2

symbols=build/linux/vmlinux-symbols
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
fail() {
    echo "FAIL  $*"
    failed=1
}

# Leaves the core in $folder/core.
dump_core() {
    cat >"$folder/boot.conf" <<EOF
pool main size=all
domain control pool=main kernel=vmlinux-control initrd=initrd-control.cpio memory=768M order=2 vcpus=1 control command="console=hvc0 nopvspin loglevel=4 crash"
domain template pool=main kernel=vmlinux initrd=initrd-redis.cpio memory=192M order=2 vcpus=2 command="loglevel=5 console=hvc0 nopvspin workload=redis size=16 seconds=1 forks=outside xen_privcmd.unrestricted=1"
option console=control script=script
EOF
    printf 'wait 32751\naudit\nstop\n' >"$folder/script" # nothing is destroyed, so all stays in memory
    configs/qemu.sh -m 1280M -s 2 -t 900 -x "-object memory-backend-file,id=ram,size=1280M,share=on,mem-path=$folder/ram" \
        -x "-machine memory-backend=ram" "${CLEAVE_IMAGE:-build/gcc-debug/cleave.elf}" "$folder/boot.conf" \
        build/linux/vmlinux-control build/linux/initrd-control.cpio build/linux/vmlinux build/linux/initrd-redis.cpio \
        "$folder/script" >"$folder/console" 2>&1 || fail "the machine ended with status $?"
    tr -d '\r' <"$folder/console" >"$folder/lines"
    grep -q '^--- crash: status 0' "$folder/lines" || fail "no core was written"
    grep -q 'audit: pool main: clean' "$folder/lines" || fail "the audit"
    build/linux/carry in "$folder/ram" >"$folder/core" || fail "the core does not arrive"
    rm -f "$folder/ram"
    [ "$failed" = 0 ] || cat "$folder/lines"
}

run_crash() { # run_crash COMMANDS: what each line says, in the file that it names behind >
    echo quit | cat "$1" - >"$folder/input"
    HOME=$folder timeout 300 crash -s -i "$folder/input" $symbols "$folder/core" >"$folder/said" 2>&1 </dev/null ||
        fail "crash: status $?: $(cat "$folder/said")"
}
has() { # has FILE PATTERN: crash said such a line
    grep -q -e "$2" "$folder/$1" || fail "$1 has no line like: $2"
}

if [ $# = 1 ]; then
    cp "$1" "$folder/core"
else
    dump_core
fi
echo "core: $(wc -c <"$folder/core") bytes"
cat >"$folder/commands" <<EOF
sys > $folder/sys
ps > $folder/ps
log > $folder/log
help -r > $folder/registers
rd -a linux_banner > $folder/banner
mod > $folder/mod
bt 1 > $folder/bt
foreach redis-server ps -a > $folder/arguments
EOF
run_crash "$folder/commands"

# Which kernel it is; by the note alone, too.
release=$(sed -n 's/.* cleave: init: \([^,]*\), 2 CPUs.*/\1/p' "$folder/log")
has sys "RELEASE: $release\$"
has sys 'CPUS: 2$'
[ "$(crash --osrelease "$folder/core" 2>&1)" = "${release:-no release}" ] || fail "no VMCOREINFO of $release"
sed -n 's/.*\[ *0\.000000\] \(Linux version .*\)/\1/p' "$folder/log" >"$folder/version"
sed 's/^[0-9a-f]*:  //' "$folder/banner" | tr -d '\n' >"$folder/text"
[ "$(cat "$folder/text")" = "$(cat "$folder/version")" ] || fail "linux_banner is not the log's"
has mod ' xen_privcmd '

# Which threads there are. Kernel threads that work for others change their names and come and go.
sed -n 's/.* cleave: thread \([0-9]* .\{1,15\}\).*/\1/p' "$folder/log" | grep -v ' kworker/' | sort >"$folder/threads"
sed -n 's/^>\{0,1\} *\([1-9][0-9]*\) .* \(\S*\)$/\1 \2/p' "$folder/ps" | tr -d '[]' | grep -v ' kworker/' | sort |
    diff "$folder/threads" - || fail "ps shows other threads (>) than the guest had (<)"
[ "$(wc -l <"$folder/threads")" -ge 20 ] || fail "few threads"
for name in init redis-server cleave-guest; do
    grep -q " $name\$" "$folder/threads" || fail "no thread $name"
done
has ps '^> .* 1 .* RU .* cleave-guest$'

# What they do: a program's own memory, and stacks. Of who is on a CPU crash 8.0.2 finds the stack by itself only if
# the kernel can take machine checks, and this one cannot; so it is told what the registers say.
has arguments 'ARG: redis-server unixsocket:/tmp/redis.sock'
has bt ' #0 .* __schedule at '
has bt ' \(__x64_sys_rt_sigsuspend\|do_wait\) at '
has bt ' entry_SYSCALL_64_after_hwframe at '
task=$(sed -n 's/^> *[0-9]* *[0-9]* *0 *\([0-9a-f]*\) .*/\1/p' "$folder/ps")
stack=$(sed -n '/^CPU 0:/,/^CPU 1:/s/.* RSP: *\([0-9a-f]*\) .*/\1/p' "$folder/registers")
code=$(sed -n '/^CPU 0:/,/^CPU 1:/s/.* RIP: *\([0-9a-f]*\) .*/\1/p' "$folder/registers")
has registers ' CR3: 0*[1-9a-f][0-9a-f]*000 '
case $code in
ffffffff*)
    echo "bt -S $stack -I $code $task > $folder/cpu0" >"$folder/commands"
    run_crash "$folder/commands"
    has cpu0 '#2 .* at ffffffff8'
    has cpu0 ' \(ret_from_fork\|secondary_startup_64_no_verify\|entry_SYSCALL_64_after_hwframe\|sysvec_[a-z_]*\) at '
    ;;
*) echo "CPU 0 was in a program." ;;
esac

if [ "$failed" != 0 ] || [ -n "${V:-}" ]; then
    for file in said sys ps registers bt cpu0 arguments banner mod log; do
        echo "--- $file"
        cat "$folder/$file"
    done
fi
exit "$failed"
