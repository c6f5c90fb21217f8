#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# create.sh: cleave create and cleave console in the control domain. /guest has a kernel as Debian packs it, and an
# initial RAM disk. It leaves the domains 1 and 2 as they were, and no other.
# shellcheck source=tests/system/control/expect.sh
. /lib/expect.sh

kernel=/guest/vmlinuz
initrd=/guest/initrd
quiet="console=hvc0 loglevel=5 nopvspin xen_privcmd.unrestricted=1"

# create NAME CMDLINE OPTION...: such a guest, that must be made.
create() {
    name=$1
    words=$2
    shift 2
    expect 0 " $name\$" create --kernel=$kernel --initrd=$initrd --memory=96M "--name=$name" "--cmdline=$quiet $words" "$@"
}

# refused STATUS TEXT OPTION...: a domain of a small kernel, which is plain ELF, is refused.
refused() {
    status=$1
    text=$2
    shift 2
    expect "$status" "$text" create --kernel=/guest/hello "$@"
}

# Bytes that are free, or that domains are charged for: nothing else takes memory for good. Domains 1 and 2 are paused.
accounted() {
    cleave list | awk 'NR > 1 { print "id=" $1 }' >/tmp/ids
    # shellcheck disable=SC2046  # words are meant
    cleave stat $(cat /tmp/ids) | awk '$1 == "charged_bytes" { sum += $2 } END { printf "%.0f\n", sum }' >/tmp/charged
    echo "$(value free_bytes info) $(cat /tmp/charged)" | awk '{ printf "%.0f\n", $1 + $2 }'
}

# nothing_left WHAT: as many domains and as much memory as before. This domain itself may take some at any time.
nothing_left() {
    [ "$(value domains info)" = "$domains" ] || fail "$1: other domains than before"
    tries=0
    while [ "$(accounted)" != "$memory" ]; do
        tries=$((tries + 1))
        [ $tries -lt 5 ] || { fail "$1: $(accounted) bytes, not $memory" && break; }
    done
    json 0 violated '' audit
}

usage() {
    expect 2 'it takes --kernel=FILE' create
    expect 2 'it takes --kernel=FILE' create --memory=1G
    expect 2 'too many: template' create --kernel=$kernel template
    for vcpus in 0 9 -1 x ''; do
        refused 2 'vcpus is a number from 1 to 8' "--vcpus=$vcpus"
    done
    for size in 0 x 1x -1 ''; do
        refused 2 'memory is a number of bytes' "--memory=$size"
    done
    expect 2 'not take --memory' fork --memory=1G template
    expect 2 'not take --once' fork --once template
    expect 2 'it takes' console
    expect 3 'no domain "nobody"' console nobody
    expect 2 'json goes with --once' console --json template
    expect 2 'the domain that asks' console control
}

# Each leaves nothing behind.
refusals() {
    refused 2 'name: .*64\|1 to 63' "--name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    refused 1 'template.*is there already (EXISTS)' --name=template
    refused 1 'is no name (INVALID)' '--name=two words'
    refused 1 'is no name (INVALID)' --name=fork-7
    refused 1 'is no name (INVALID)' --name=domain-7
    refused 2 'name: .*1 to 63' --name=
    refused 2 'memory: .*at least 2 MiB' --memory=1M
    refused 2 'memory: .*multiple of 4 KiB' --memory=100000001
    expect 2 "kernel: a segment lies outside of the guest's memory" create --kernel=$kernel --memory=16M
    refused 1 'memory: .*free in the pool (NO_MEMORY)' --memory=100G
    refused 1 'memory: .*free in the pool (NO_MEMORY)' --memory=200T
    refused 1 'memory: .*free in the pool (NO_MEMORY)' --memory=$(($(value free_bytes info) / 1048576))M
    refused 2 'memory: ' --memory=300T
    refused 2 'command line: .*at most 1023' "--cmdline=$(head -c 1024 /dev/zero | tr '\0' x)"
    refused 2 'initrd: its initrd does not fit' --initrd=$kernel --memory=12M
    refused 1 '/nothing: --initrd: No such file' --initrd=/nothing
    expect 1 '/nothing: --kernel: No such file' create --kernel=/nothing
    expect 1 '/tmp: --kernel: Is a directory' create --kernel=/tmp
    expect 2 '/init: --kernel: neither an ELF kernel nor a bzImage' create --kernel=/init
    head -c 1000000 $kernel >/tmp/short
    expect 2 '/tmp/short: --kernel: a bzImage that is cut short' create --kernel=/tmp/short
    json 2 errors.0.target /tmp/short create --kernel=/tmp/short
    head -c 600 $kernel >/tmp/short
    expect 2 'a bzImage that is cut short' create --kernel=/tmp/short
    cp $kernel /tmp/damaged
    head -c 4096 /dev/zero | dd of=/tmp/damaged bs=4096 seek=1000 conv=notrunc 2>/dev/null
    expect 2 'cannot be unpacked' create --kernel=/tmp/damaged
    rm /tmp/short /tmp/damaged
    nothing_left refusals
}

# Of two at a time with one name, one is made.
twins() {
    cleave create --kernel=/guest/hello --memory=32M --name=twin --paused >/tmp/first 2>&1 &
    cleave create --kernel=/guest/hello --memory=32M --name=twin --paused >/tmp/second 2>&1
    wait
    cat /tmp/first /tmp/second >$out
    [ "$(grep -c ' twin$' $out)$(grep -c EXISTS $out)" = 11 ] || fail "two of one name"
    expect 0 destroyed destroy twin
    nothing_left twins
}

# A kernel of some lines of C.
small() {
    json 0 name small create --kernel=/guest/hello --memory=32M --name=small
    json 0 domains.0.reason exited wait small --timeout=20
    json 0 domains.0.code 0 wait small
    expect 0 destroyed destroy small
    nothing_left small
}

# A Linux from its first instruction to the end of its init. Without a name it gets one.
boots() {
    made=$(value id create --kernel=$kernel --initrd=$initrd --memory=96M --vcpus=2 "--cmdline=$quiet")
    json 0 domains.0.name "domain-$made" stat "$made"
    json 0 domains.0.made_by 32751 stat "$made"
    json 0 domains.0.vcpus 2 stat "domain-$made"
    [ "$(value domains.0.mapped_2m_bytes stat "$made")" -gt 90000000 ] || fail "few large leaves"
    expect 0 "domain-$made: exited, code 0: init: code 0" wait "$made" --timeout=120
    expect 0 'cleave: init: 6\..*, 2 CPUs, ' console --once "$made"
    expect 0 "cleave: init: index 0 count 0 domain $made " console --once "$made"
    expect 0 'exited, code 0' console "$made"
    expect 0 destroyed destroy "$made"
    nothing_left boots
}

# It is forked while it runs, and the children do what their data say.
is_forked() {
    mkdir -p /tmp/jobs
    for code in 4 5; do
        echo "code=$code; note=\"as asked\"" >/tmp/jobs/$code
    done
    create made 'workload=idle forks=outside'
    tries=0
    until cleave console --once made | grep -q 'forked from here on'; do
        tries=$((tries + 1))
        [ $tries -lt 120 ] || { fail "it does not boot" && break; }
        sleep 1
    done
    sleep 1
    json 0 domains.1.file /tmp/jobs/5 fork --data-dir=/tmp/jobs made
    json 0 domains.1.reason exited wait --all-children made --timeout=120
    cleave wait --all-children made | sed 's/.*exited, //' | sort >$out
    printf 'code 4: child 1: code 4, as asked\ncode 5: child 2: code 5, as asked\n' | cmp -s - $out || fail "two children"
    expect 0 destroyed destroy --all-children made
    snapshot=$(value id snapshot made kept)
    expect 1 'a snapshot prints nothing' console kept </dev/null
    child=$(value domains.0.id restore kept)
    json 0 domains.0.state running stat "$child"
    expect 0 destroyed destroy "$child" "$snapshot" made
    nothing_left is_forked
}

# Both directions, from the prompt of a shell to its end.
consoles() {
    create made 'shell loglevel=7' --paused
    json 0 domains.0.state paused stat made
    json 0 text '' console --once made
    json 0 lost_bytes 0 console --once made
    expect 0 unpaused unpause made
    # shellcheck disable=SC2016  # the guest's shell's
    printf 'echo typed-$((40 + 2))\nexit 3\n' | cleave console made >$out 2>&1 || fail "status $? of the console"
    grep -q '^typed-42' $out || fail "nothing came of what was typed"
    grep -q 'made: exited, code 0' $out || fail "its end is not told"
    expect 0 'typed-42' console --once made
    expect 0 'made: [0-9]* bytes are gone' console --once made
    [ "$(value lost_bytes console --once made)" -gt 4032 ] || fail "it lost little of its boot"
    [ "$(value text console --once made | wc -c)" -ge 4032 ] || fail "little is kept"
    expect 0 'control domain: \|^--- ' console --once control
    expect 0 'exited, code 0' console made
    expect 0 destroyed destroy made
    expect 0 ' made$' create --kernel=/guest/hello --memory=32M --name=made --paused
    (sleep 1 && cleave destroy made >/dev/null) &
    expect 3 'NO_CAP\|no domain\|DYING' console made </dev/null
    nothing_left consoles
}

# What is stopped by a signal half-way is taken back.
stops() {
    cleave create --kernel=$kernel --initrd=$initrd --memory=1200M --name=half >$out 2>&1 &
    tries=0
    until cleave list | grep -q ' half '; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { fail "it does not begin" && break; }
    done
    kill -INT $!
    wait $!
    status=$?
    [ $status = 1 ] || fail "status $status"
    grep -q 'stopped; nothing is left' $out || fail "it does not say that it was stopped"
    nothing_left stops
}

# The names that this domain gives are no other's; a guest can give one that another pool's domain has.
names() {
    refused 1 'template.*is there already (EXISTS)' --pool=tenant --memory=32M --name=template
    expect 0 ' maker$' create --kernel=/guest/hello --pool=tenant --memory=32M --name=maker --cmdline=child=template
    json 0 domains.0.code 0 wait maker --timeout=20
    twin=$(cleave list | awk '$2 == "template" && $1 != 1 { print $1 }')
    json 0 domains.0.name template stat "$twin"
    json 0 domains.0.name template stat 1
    expect 3 "domains 1 and $twin, of two pools, both have the name \"template\": use the number" stat template
    expect 1 'is there already (EXISTS)' rename maker template
    expect 0 destroyed destroy "$twin"
    json 0 domains.0.id 1 stat template
    expect 0 destroyed destroy maker
}

# In the memory of another pool, that grows for it, and no other.
pooled() {
    left=$(value left_bytes pool list)
    refused 1 'pool: there is none named "tenant" (NOT_MAPPED)' --pool=tenant
    expect 0 '^tenant: 64.0 MiB' pool create tenant 64M
    refused 1 'memory: 98304 KiB, and what tables take, are more than' --pool=tenant --memory=96M
    expect 0 '^tenant: 128.0 MiB' pool resize tenant 128M
    refused 1 'memory: 131072 KiB, and what tables take, are more than' --pool=tenant --memory=128M
    create guest workload= --pool=tenant
    json 0 pools.1.spaces 1 pool list
    [ "$(value pools.1.free_bytes pool list)" -lt 33554432 ] || fail "its memory is not the pool's"
    expect 0 'guest: exited, code 0: init: code 0' wait --timeout=120 guest
    [ "$(cleave list | awk '$2 == "guest" { print $7 }')" = 2 ] || fail "the number of its pool"
    json 1 errors.0.status BUSY pool delete tenant
    json 1 errors.0.status BUSY pool resize tenant 64M
    expect 1 'must have [0-9]*M at least (BUSY)' pool resize tenant 2M
    json 0 pools.1.bytes 134217728 pool list
    expect 0 destroyed destroy guest
    names
    json 0 pools.1.spaces 0 pool list
    json 0 bytes 67108864 pool resize tenant 64M
    json 0 pools.1.bytes 67108864 pool list
    expect 0 '^tenant: deleted' pool delete tenant
    [ "$(value left_bytes pool list)" = "$left" ] || fail "what was a pool is not left again"
    nothing_left pooled
}

expect 0 paused pause 1
expect 0 paused pause 2
create warm '' --paused # what this domain allocates once and keeps
expect 0 destroyed destroy warm
domains=$(value domains info)
memory=$(accounted)
usage
refusals
twins
small
boots
is_forked
consoles
stops
pooled
expect 0 unpaused unpause 1
expect 0 unpaused unpause 2
exit $((failures != 0))
