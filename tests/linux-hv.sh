#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# linux-hv.sh CASE: Linux guests on the hypervisor, forked while they run by lines for its debug console
# (option script= of the boot configuration). What the children of a fork do is told by the fork's data, which
# they execute (tests/system/linux/init.sh).
# linux-hv.sh --list: the cases. linux-hv.sh template STORY...: of the template, busy and these stories only. A long
# check plays each story also from a boot of its own (fresh.STORY).
#
# CLEAVE_LONG takes longer forms of them. CLEAVE_IMAGE names another image than that of a case. The console is
# printed when a case fails, or with V=1, each line behind the second at which it came.
# shellcheck disable=SC2016  # what stands in '' is for the guests' shell
# shellcheck disable=SC2317  # functions are called by name
set -u
cd "$(dirname "$0")/.." || exit 2

folder=$(mktemp -d)
output=$folder/console
script=$folder/script
trap 'rm -rf "$folder"' EXIT
failed=0

complain() {
    echo "FAIL  $1"
    failed=1
}

# wants PATTERN [COUNT]: so many lines are like that; at least one
wants() {
    local found
    found=$(grep -cE -- "^[0-9]* $1" "$output")
    if [ -n "${2:-}" ]; then
        [ "$found" = "$2" ] || complain "$found lines, not $2, are like: $1"
    elif [ "$found" = 0 ]; then
        complain "no line like: $1"
    fi
}

# refuses PATTERN: no line is like that, in whatever it stands
refuses() {
    if grep -E -- "$1" "$output"; then
        complain "a line like: $1"
    fi
}

# What Linux says when it was kept from running for too long, or has found its state to be wrong.
lockups='soft lockup|self-detected stall|detected stalls|hung task|blocked for more than|BUG:|Oops'

# Lines that two domains print at once can be broken; what "tail" shows of one, behind a "| ", is not.

# --- What is played --------------------------------------------------------------------------------

# domain NAME INITRD MEMORY VCPUS WORD...: a domain of the boot configuration; $next is the id of the one after it
domain() {
    local name=$1 initrd=$2 memory=$3 vcpus=$4
    shift 4
    echo "domain $name pool=main kernel=vmlinux initrd=$initrd memory=$memory order=2 vcpus=$vcpus" \
        "command=\"loglevel=5 console=hvc0 nopvspin $*\"" >>"$folder/boot.conf"
    next=$((next + 1))
}
echo 'pool main size=all' >"$folder/boot.conf"
next=1
cpus=2
may_call=xen_privcmd.unrestricted=1

# line TEXT: for the debug console
line() { echo "$1" >>"$script"; }

# forks WHAT ID COUNT [WORD...]: "fork" or "restore"; $first is the first child's id, $next the one after the last
forks() {
    line "$*"
    first=$next
    next=$((next + $3))
}

# boots MEMORY(MiB) SECONDS: plays it on QEMU; the peak of the emulator's resident memory goes to $peak, in KiB
boots() {
    local status=0 child pid
    line finish
    echo "option console=all script=script" >>"$folder/boot.conf"
    set -- -m "$1M" -s "$cpus" -t "$2" "${CLEAVE_IMAGE:-$image}" \
        "$folder/boot.conf" "$script" build/linux/vmlinux build/linux/initrd.cpio build/linux/initrd-redis.cpio
    mkfifo "$folder/lines"
    while IFS= read -r text; do
        printf '%s %s\n' "$EPOCHSECONDS" "$text"
    done <"$folder/lines" >"$output" &
    configs/qemu.sh "$@" >"$folder/lines" 2>&1 &
    child=$!
    peak=0
    while kill -0 "$child" 2>/dev/null; do
        pid=$(pgrep -f "^qemu-system-x86_64 .*$folder/boot.conf")
        pid=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
        peak=${pid:-$peak}
        sleep 1
    done
    wait "$child" || status=$?
    wait
    if [ "$status" != 0 ]; then
        complain "status $status (124: its time was up)"
    fi
    wants 'verdict: pass, worst exit code 0, audits clean'
    refuses 'refused:|usage:|no such command|not looked at|no domain '
    refuses "$lockups"
}

# result ID: what domain ID handed back, in one line
result() { awk -v id="$1" '$2 == "domain" && $3 == id && / of /{ on = 1; next } on && $2 == "result:" {
    $1 = $2 = ""; text = text $0; next } on { exit } END { print substr(text, 3) }' "$output"; }

# ended ID PATTERN: it exited with code 0 and a result like that
ended() {
    wants "domain $1 [^ ]* of [0-9]*: exited, code 0\$" 1
    result "$1" | grep -qE -- "$2" || complain "domain $1 handed back \"$(result "$1")\", not: $2"
}

# --- Stories of the template -----------------------------------------------------------------------

# They fork from the domains of one boot: 1 holds data that are written to, 2 computes on both its CPUs, 3 waits for
# orders; 4 and 5 boot and end.

# Children, their children and theirs of a domain that never pauses, with two CPUs at work in each.
story_busy() {
    line 'sleep 500'
    forks fork 2 2
    busy=$first
    line 'sleep 100'
    forks fork "$busy" 1
    line 'sleep 100'
    forks fork "$((busy + 2))" 1
    line 'wait 2'
    line "wait children 2"
    line "wait children $busy"
    line "wait children $((busy + 2))"
    line 'ended 2'
    line 'ended children 2'
    line "ended children $busy"
    line "ended children $((busy + 2))"
}
check_busy() {
    local id
    for id in 2 "$busy" $((busy + 1)) $((busy + 2)) $((busy + 3)); do
        ended "$id" 'CPU 0: right, largest step [0-9]{1,4} ms .*CPU 1: right, largest step [0-9]{1,4} ms'
    done
    ended 2 '^parent: code 0'
    ended $((busy + 1)) '^child 2: code 0'
    ended $((busy + 3)) '^child 1: code 0'
}

story_boot() {
    line 'wait 4'
    line 'wait 5'
    line 'ended 4'
    line 'ended 5'
    line 'tail 4 to 5'
}
check_boot() {
    wants '\| .*cleave: init: [^ ]*-cloud-amd64, 1 CPUs,' 1
    wants '\| .*cleave: init: [^ ]*-cloud-amd64, 2 CPUs,' 1
    wants 'domain [45] [a-z-]* of 0: exited, code 0' 2
}

# Linux finds nothing to switch its power off with, and halts.
story_power() {
    forks fork 3 1 'data=poweroff -f'
    power=$first
    line "wait $power"
    line "ended $power"
    line "tail $power"
}
check_power() {
    wants "domain $power fork-$power of 3: (powered off|halted with interrupts off), code 0" 1
    wants '\| .*reboot: ' 1
}

# Four children of one call check data that their parent goes on writing.
story_data() {
    line 'sleep 300'
    forks fork 1 4
    data=$first
    line "wait children 1"
    line "ended children 1"
    line "tail bytes=2000 children 1"
    line "destroy children 1"
}
check_data() {
    local id
    for id in 0 1 2 3; do
        ended $((data + id)) "^child $((id + 1)): code 0, forked after [1-9][0-9]* writes"
    done
    wants '\| .*cleave: child [12]: scan .*: right' 4
    wants '\| .*cleave: child [34]: sample .*: right' 4
}

# Domains restored from one snapshot at different times know the same instant.
story_restore() {
    local job='data=check job $(child_domain); note="$note, $found"'
    line 'snapshot 1 instant'
    instant=$next
    next=$((next + 1))
    forks restore "$instant" 2 "$job"
    line 'sleep 1000'
    forks restore "$instant" 1 "$job"
    line "wait children $instant"
    line "ended children $instant"
    line "destroy children $instant"
    line "destroy $instant"
}
check_restore() {
    local id writes
    writes=$(result $((instant + 1)) | sed 's/.*forked after \([0-9]*\) writes.*/\1/')
    for id in 1 2 3; do
        ended $((instant + id)) "forked after ${writes:-none} writes, job with salt $((instant + id)), .*: right"
    done
}

# A child in the middle of its work is forked with a base, and taken back to it many times.
story_reset() {
    local i
    forks fork 1 1 'data=say works; while load write 20 9 >/dev/null; do :; done'
    line "await $first works"
    line 'sleep 1000'
    forks fork "$first" 1 base paused
    back=$first
    line "destroy $((back - 1))"
    line "digest $back"
    line "diff $back"
    for i in $(seq "$resets"); do
        line "unpause $back"
        line 'sleep 20'
        line "pause $back"
        line "diff $back"
        line "reset $back"
        line "diff $back"
        case $i in
        1 | 10 | 100 | 1000) line "digest $back" ;;
        esac
    done
    line "destroy $back"
}
check_reset() {
    local same written
    written=$(grep -cE "^[0-9]* diff $back: [1-9]" "$output")
    [ "$written" = "$resets" ] || complain "only $written of $resets times anything was written"
    wants "diff $back: 0 pages in 0 ranges, records equal" $((resets + 1))
    wants "digest $back: [0-9a-f]{16} of [1-9][0-9]* pages" $((${#resets} + 1))
    same=$(sed -n "s/^[0-9]* digest $back: //p" "$output" | sort -u | wc -l)
    [ "$same" = 1 ] || complain "$same different digests"
}

# Three generations of children, each forked by somebody else while it waits for that.
story_deep() {
    local again='data=since=$(cleave-guest info); say waits; be_forked'
    forks fork 3 1 "$again"
    line "await $first waits"
    forks fork "$first" 1 "$again"
    line "await $first waits"
    forks fork "$first" 1 'data=note="orders of $(cleave-guest info)"'
    deep=$first
    line "wait $deep"
    line "ended $deep"
    line "destroy $deep"
    line "destroy $((deep - 1))"
    line "destroy $((deep - 2))"
}
check_deep() { ended "$deep" "^child 1: code 0, orders of index 1 count 1 domain $deep generation [0-9a-f]{32} "; }

# Each child's generation is another, and so is the parent's; a guest forks itself.
story_self() {
    forks fork 3 1 'data=index=$(cleave-guest fork 3); role="child $index"; note="$(cleave-guest info)"'
    self=$first
    next=$((next + 3))
    line "wait $self"
    line "wait children $self"
    line "ended $self"
    line "ended children $self"
}
check_self() {
    local id
    ended "$self" "^child 0: code 0, index 1 count 1 domain $self generation"
    for id in 1 2 3; do
        ended $((self + id)) "^child $id: code 0, index $id count 3 domain $((self + id)) generation"
    done
    id=$(for id in 0 1 2 3; do result $((self + id)); done | sed 's/.*generation //' | sort -u | wc -l)
    [ "$id" = 4 ] || complain "$id generations of 4"
}

# Between two forks that are made at different times, the guests' date goes on as ours does. How far it is from ours is
# decided when Linux boots: it counts ticks until it knows its clock, and loses those that come late.
story_clock() {
    local order='data=say "date $(date +%s)"'
    forks fork 3 1 "$order"
    clock=$first
    line "wait $first"
    line 'sleep 10000'
    forks fork 3 1 "$order"
    line "wait $first"
}
check_clock() {
    local early late
    read -r -a early <<<"$(dates "$clock")"
    read -r -a late <<<"$(dates $((clock + 1)))"
    if [ ${#early[@]} != 2 ] || [ ${#late[@]} != 2 ]; then
        complain 'no dates'
        return
    fi
    echo "dates: ${early[*]}; ${late[*]}"
    wants_near 'the date of the first' "${early[1]}" "${early[0]}" 60
    wants_near 'the time that has passed' $((late[1] - early[1])) $((late[0] - early[0])) 3
}
# dates ID: when domain ID said a date, and which
dates() { sed -n "s/^\([0-9]*\) fork-$1: .*cleave: date \([0-9]*\).*/\1 \2/p" "$output"; }
wants_near() { # wants_near WHAT IS WANTED DISTANCE
    if [ $(($2 - $3)) -gt "$4" ] || [ $(($3 - $2)) -gt "$4" ]; then
        complain "$1 is $2, and not near $3"
    fi
}

story_crash() {
    forks fork 3 1 'data=echo c >/proc/sysrq-trigger'
    crash=$first
    line "wait $crash"
    line "ended $crash"
    line "tail $crash"
}
check_crash() {
    wants "domain $crash fork-$crash of 3: crashed, code" 1
    wants '\| .*sysrq: Trigger a crash' 1
}

story_unknown() {
    forks fork 3 1 'data=note="returned $(cleave-guest call 60) $(cleave-guest call 61)"'
    unknown=$first
    line "wait $unknown"
    line "calls $unknown"
    line "ended $unknown"
}
check_unknown() {
    ended "$unknown" 'returned -38 -38$'
    wants "calls $unknown: 2 unknown" 1
    wants '  hypercall 60: 1' 1
}

# A guest that writes far more than its terminal's ring holds is not held up.
story_flood() {
    forks fork 3 1 'data=head -c 300000 /dev/zero | tr "\0" x >/dev/hvc0; note=written'
    flood=$first
    line "wait $flood"
    line "ended $flood"
    line "tail bytes=40 $flood"
}
check_flood() {
    ended "$flood" 'written$'
    wants "tail $flood: 40 bytes, [1-9][0-9]* dropped" 1
}

# What is typed for a domain reaches it and no fork of it, also when a fork comes in between.
story_input() {
    local all='data=while [ "$word" != end ] && read -r word; do note="$note $word"; done </dev/hvc0'
    forks fork 3 1 "$all"
    input=$first
    line 'sleep 1000'
    line "type $input one"
    line "type $input two"
    forks fork "$input" 1
    line "type $input three"
    line "type $input end"
    line "type $((input + 1)) four"
    line "type $((input + 1)) end"
    line "wait $input"
    line "wait $((input + 1))"
    line "ended $input"
    line "ended $((input + 1))"
}
check_input() {
    ended "$input" 'code 0, *one two three end$'
    ended $((input + 1)) 'code 0,( one)?( two)? four end$'
}

stories() { # stories [STORY...]: these, or all
    if [ $# -gt 0 ]; then
        echo busy "$@"
    else
        sed -n 's/^story_\([a-z]*\)().*/\1/p' "$0"
    fi
}

# --- Cases -----------------------------------------------------------------------------------------

case_template() {
    local story
    image=build/gcc-debug/cleave.elf
    resets=100
    [ -z "${CLEAVE_LONG:-}" ] || resets=1000
    domain data initrd-redis.cpio 512M 1 workload=redis size=8 seconds=1 whole=2 writes=100 forks=outside "$may_call"
    domain busy initrd.cpio 256M 2 workload=busy seconds=20 "$may_call"
    domain idle initrd.cpio 128M 1 workload=idle "$may_call"
    domain one-cpu initrd.cpio 128M 1 "$may_call"
    domain two-cpus initrd.cpio 128M 2 "$may_call"
    line 'await 2 forked from here on'
    for story in $(stories "$@"); do
        "story_$story"
        if [ "$story" = busy ]; then # it is first, as its parent does not wait
            line 'await 1 forked from here on'
            line 'await 3 forked from here on'
        fi
    done
    boots 3072 600
    for story in $(stories "$@"); do
        "check_$story"
    done
}

# many COUNT SECONDS: so many children of one 512 MiB guest exist at once, do a short job each, and all are right
many() {
    local count=$1 made=0 part i
    image=build/gcc-release/cleave.elf
    cpus=1
    domain linux initrd-redis.cpio 512M 1 workload=redis size=32 seconds=1 forks=outside job=1 "$may_call"
    line 'await 1 forked from here on'
    line 'sleep 500'
    while [ "$made" -lt "$count" ]; do
        part=$((count - made < 50 ? count - made : 50))
        forks fork 1 "$part" paused
        made=$((made + part))
    done
    for i in $(seq 2 16 $((count + 1))); do # so many run at a time; the clocks of the others stand still
        part=$((i + 15 < count + 1 ? i + 15 : count + 1))
        line "unpause $i to $part"
        line "wait $i to $part"
    done
    line 'ended children 1'
    for i in $(seq 32); do
        line "tail $((1 + i * count / 32))"
    done
    line 'pause 1' # all stand still while so many are audited, and its clock would not
    line 'audit'
    line 'destroy children 1'
    boots "$3" "$2"
    wants "domain [0-9]* fork-[0-9]* of 1: exited, code 0\$" "$count"
    wants '  result: child [0-9]*: code 0, job with salt [0-9]*, records .* after [1-9][0-9]* writes: right' "$count"
    part=$(sed -n 's/.*  result: .*\(job with salt [0-9]*\),.*/\1/p' "$output" | sort -u | wc -l)
    [ "$part" = "$count" ] || complain "$part different results of $count"
    echo "$count children at once: peak of the emulator's memory $peak KiB;" \
        "$(sed -n 's/^\([0-9]*\) > unpause 2 .*/\1/p; s/^\([0-9]*\) > ended children.*/\1/p' "$output" |
            paste -s -d ' ' | awk '{ print $2 - $1 }') seconds from their start until the last had ended"
    [ "$peak" -le $((12 << 20)) ] || complain "more than 12 GiB"
}

case_hundred() { many 100 600 3072; }
case_thousand() { many 1000 1200 3072; }

if [ "${1:-}" = --list ]; then
    sed -n 's/^case_\([a-z_]*\)().*/\1/p' "$0" | grep -v "^${CLEAVE_LONG:-thousand}\$"
    [ -z "${CLEAVE_LONG:-}" ] || stories | grep -v '^busy$' | sed 's/^/fresh./'
    exit 0
fi
case ${1:-} in
fresh.*) set -- template "${1#fresh.}" ;;
esac
name=case_${1:-}
declare -F "$name" >/dev/null || exit 2
shift
"$name" "$@"
if [ "$failed" != 0 ] || [ -n "${V:-}" ]; then
    cat "$output"
fi
exit "$failed"
