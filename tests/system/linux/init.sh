#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# init.sh: the first process of a Linux guest. What it says goes to the kernel's log, each line with "cleave: "
# in front, so that it can be read on any console. It ends the domain with code 0 when all was right, and powers
# off where there is no hypervisor to tell the code to.
#
# Words on the kernel's command line:
#   workload=redis  fills a redis server, and writes to it; initrd-redis.cpio has what that takes
#   workload=fork   forks itself once and says what that took and what the child took, idle
#   workload=busy   a program computes on each CPU meanwhile
#   workload=idle   nothing does, and a fork does what its data say
#   workload=rest   nothing does, for ever, in forks too
#   size=MIB        of data (256)
#   seconds=N       that it is written to, before the fork and by the parent after it (2); that busy computes
#   forks=COUNT     then the guest forks itself (0: it does not); "outside": it is forked by somebody else;
#                   "noticed": so, and it goes on as the parent does that forks itself
#                   The data of such a fork, if there are any, are commands for the child: it executes them.
#   whole=COUNT     the first children that check the whole set (4); the others check a random MiB each
#   job=1           children do a short job instead: change a record, and check the 64 KiB from there on
#   check=scan      how the whole set is checked (also: digest, which redis makes of it, and takes much longer)
#   writes=COUNT    that a child does of its own, to be found again in what it checks next (1000)
#   flip=RECORD     one bit of that record is flipped between a first check and a last, which must find it
#   pretend=INDEX   there is no hypervisor: the fork is only pretended, and this one is that child
#   flipper=INDEX   only that child flips it (0: the parent); without, everybody does
#   first=sample    children first check a random MiB each, and the set only at the end, which takes less time
#   children=wait   the parent waits for its children at the end, and fails when one did or when their results are
#                   not as they must be
#   again           then all of it begins again, but filling the server; with forks=noticed
#   shell           a shell on the console before the end; not in children
#   xen_privcmd.unrestricted=1   lets cleave-guest make hypercalls in a domain that is not the first
# What a domain hands back with its code: "ROLE: code N", and how many writes there were at the fork: exactly in a
# child, in the parent between two numbers. Numbers of children of one fork differ by one at most, because the
# writer sees the fork between two writes.
# shellcheck disable=SC2154  # the words' values are set by eval
/bin/busybox --install -s /bin
export PATH=/bin

mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
echo on >/proc/sys/kernel/printk_devkmsg # as many lines as there are

say() { echo "cleave: $*" >/dev/kmsg; }

socket=/tmp/redis.sock
page=/tmp/identity
code=0

load() { cleave-load $socket "$@" 2>&1; }

# Runs a check and says what came of it.
check() {
    found=$(load "$@")
    status=$?
    say "$role: $found"
    [ $status = 0 ] || code=1
}

# The identity page where there is no hypervisor: pretend INDEX DOMAIN GENERATION
pretend_page() {
    {
        printf 'CleaveID\001\000\000\000'
        # shellcheck disable=SC2059  # the numbers are bytes of the format
        printf "\\00$1\\000\\000\\000\\005\\000\\000\\000\\00$2\\000\\000\\000$3"
        head -c 8192 /dev/zero
    } | dd of=$page bs=8192 count=1 iflag=fullblock conv=notrunc 2>/dev/null
}

fork_domain() {
    if [ -n "$pretend" ]; then
        [ "$pretend" = 0 ] || pretend_page "$pretend" 7 another-number--
        index=$pretend
    elif [ "$forks" = outside ]; then
        index=$(cleave-guest wait "$since" 2>&1)
    elif [ "$forks" = noticed ]; then
        index=$(cleave-guest notice "$since" "$still" 2>&1)
    else
        index=$(cleave-guest fork "$forks" 2>&1)
    fi
}

# Another process writes, until it is stopped or finds itself in a child.
start_writer() {
    cleave-load $socket write >/tmp/writer 2>&1 &
    writer=$!
}

flips() { [ -n "$flip" ] && [ "${flipper:-$index}" = "$index" ]; }

flip_bit() { say "$role: flips a bit of record $flip $(load flip "$flip" 1234)"; }

# Waits for the children. Each must have ended with code 0, one of each index, and with a number of writes at the
# fork between those before and after it ($1, $2), the writer's last one included, and all within one.
collect_children() {
    cleave-guest collect "$forks" >/tmp/children 2>&1 || code=1
    while read -r line; do
        say "$role: $line"
    done </tmp/children
    # domain ID reason REASON code CODE child INDEX: code CODE, forked after WRITES writes
    sed -n 's/^domain .* child \([0-9]*\): code 0, forked after \([0-9]*\) writes$/\1 \2/p' /tmp/children | sort -n |
        awk -v count="$forks" -v from="$1" -v to="$2" '
            $1 != NR || $2 < from || $2 > to + 1 { bad = 1 }
            NR == 1 { least = most = $2 }
            { least = $2 < least ? $2 : least; most = $2 > most ? $2 : most }
            END { exit bad || NR != count || most - least > 1 }' || {
        say "$role: the children's results are WRONG"
        code=1
    }
}

as_parent() {
    role=$1
    sleep "$seconds"
    kill -TERM "$writer"
    wait "$writer" || code=1
    say "$role: $(cat /tmp/writer)"
    check "$check"
    if flips; then
        flip_bit
        check "$check"
    fi
}

check_part() {
    if [ "$index" -le "$whole" ]; then
        check "$check"
    else
        check sample "$index"
    fi
}

child_domain() { cleave-guest info | sed 's/.* domain \([0-9]*\) .*/\1/'; }

# What the fork's caller wants the child to do; false where that said nothing.
obey() {
    role="child $index"
    orders=$(cleave-guest data 2>/dev/null)
    [ -z "$orders" ] || eval "$orders"
    [ -n "$orders" ]
}

# By which leaves the hypervisor maps the guest's memory, where there is one.
say_leaves() {
    [ -n "$pretend" ] || say "${role:-init}: leaves $(cleave-guest leaves 2>&1)"
}

as_child() {
    role="child $index"
    wait "$writer" || code=1
    if [ -n "$job" ]; then
        check job
        note=$found
        return
    fi
    note="forked after $(load writes) writes"
    say "$role: $(cleave-guest info)"
    say "$role: $note"
    obey && return
    say_leaves
    if [ "$first" = sample ]; then
        check sample "$index"
    else
        check_part
    fi
    check write "$writes" "$(child_domain)"
    ! flips || flip_bit
    check_part
}

# Waits to be forked, and obeys; the parent waits for ever.
be_forked() {
    index=$(cleave-guest wait "$since" 2>&1)
    obey
}

run_busy() {
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        cleave-guest busy "$seconds" "$cpu" >"/tmp/busy.$cpu" 2>&1 &
    done
    say "workload: forked from here on"
    for process in $(jobs -p); do
        wait "$process" || code=1
    done
    role=$(cleave-guest info | sed 's/index 0 .*/parent/; s/index \([0-9]*\) .*/child \1/')
    note=$(cat /tmp/busy.*)
    say "$role: $(echo "$note" | tr '\n' ';')"
}

run_redis() {
    redis-server --port 0 --unixsocket $socket --save '' --enable-debug-command local --dir /tmp \
        --loglevel warning --logfile /tmp/redis.log &
    role=workload
    check fill "$size"
    [ $code = 0 ] || say "redis: $(tail -n 1 /tmp/redis.log)"
    write_and_fork
    while [ -n "$again" ] && [ "$index" = 0 ]; do
        write_and_fork
    done
}

write_and_fork() {
    start_writer
    sleep "$seconds"
    if [ "$forks$pretend" = 0 ]; then
        index=none
        as_parent "never forked"
        return
    fi
    before=$(load writes)
    since=$(cleave-guest info) # a fork may come as soon as it may
    [ "$forks" != noticed ] || still=$(cleave-guest still)
    say "workload: forked from here on"
    fork_domain
    case $index in
    0)
        after=$(load writes)
        note="forked after $before to $after writes"
        say "parent: $note"
        as_parent parent
        [ "$children" != wait ] || collect_children "$before" "$after"
        ;;
    [1-9]*) as_child ;;
    *)
        say "no fork: $index"
        code=1
        ;;
    esac
}

run_fork() {
    cleave-guest measure >/tmp/measured 2>&1 || code=1
    while read -r line; do
        say "measured: $line"
    done </tmp/measured
}

workload=
size=256
seconds=2
forks=0
whole=4
check=scan
writes=1000
job=
note=
flip=
flipper=
first=
children=
pretend=
index=
shell=
again=
# shellcheck disable=SC2013  # words are meant
for word in $(cat /proc/cmdline); do
    case $word in
    workload=* | size=* | seconds=* | forks=* | whole=* | check=* | first=* | writes=* | job=* | children=* | flip=* | \
        flipper=* | pretend=*)
        eval "${word%%=*}=\${word#*=}"
        ;;
    shell) shell=1 ;;
    again) again=1 ;;
    esac
done

# The words "MODULE.OPTION" for a module, as the kernel takes them for what is built in.
options() {
    # shellcheck disable=SC2013  # words are meant
    for word in $(cat /proc/cmdline); do
        case $word in
        "$1".*) echo "${word#"$1".}" ;;
        esac
    done
}

while read -r module; do
    # shellcheck disable=SC2046  # words are meant
    insmod "/modules/$module" $(options "$(basename "$module" .ko | tr - _)") 2>/dev/null ||
        say "module $module refused"
done </modules/order
if [ -n "$pretend" ]; then
    export CLEAVE_IDENTITY=$page
    pretend_page 0 1 a-number--------
fi
say "init: $(uname -r), $(grep -c '^processor' /proc/cpuinfo) CPUs, $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
say "init: $(cleave-guest info 2>&1)"
say_leaves
case $workload in
redis) run_redis ;;
fork) run_fork ;;
busy) run_busy ;;
rest)
    say "workload: rests"
    sleep 1000000
    ;;
idle)
    since=$(cleave-guest info)
    say "workload: forked from here on"
    be_forked
    ;;
'') ;;
*)
    say "no such workload: $workload"
    code=1
    ;;
esac
if [ -n "$shell" ] && [ "${index:-0}" = 0 ]; then
    say "shell: on this console. Three Ctrl-A change who gets what is typed; 'stop' on the debug console ends all"
    setsid cttyhack sh </dev/console >/dev/console 2>&1
fi
say_leaves
say "init: done, code $code"
echo "${role:-init}: code $code${note:+, $note}" >/tmp/result
cleave-guest exit $code /tmp/result 2>/dev/null
poweroff -f
