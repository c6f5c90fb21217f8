#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# short.sh: the command cleave in its short form, for a machine where everything takes long: forks "worker" (cleave.sh
# says what that is), whose children hand back what their data said; snapshots, resets and destroys.
failures=0
# has TEXT COMMAND...: it succeeds and prints a line with TEXT (a pattern)
has() {
    text=$1
    shift
    "$@" >/tmp/out 2>&1 || {
        echo "FAILED $*: status $?"
        failures=$((failures + 1))
    }
    grep -q -e "$text" /tmp/out || {
        echo "FAILED $*: no line with \"$text\""
        failures=$((failures + 1))
    }
    cat /tmp/out
}

until cleave console --once worker 2>/dev/null | grep -q 'forked from here on'; do
    sleep 1
done
has 'hypervisor: revision' cleave version
has ' worker  *running' cleave list
# shellcheck disable=SC2016  # for the child's shell
echo 'note="orders of index $index"' >/tmp/data
has 'fork-' cleave fork -n 2 --data /tmp/data worker
has 'exited, code 0: child 1: code 0, orders of index 1' cleave wait --all-children worker
grep -q 'child 2: code 0, orders of index 2' /tmp/out || failures=$((failures + 1))
child=$(cleave list | sed -n 's/^ *[0-9]* \(fork-[0-9]*\) .*/\1/p' | head -n 1)
has 'exclusive' cleave stat "$child"
has 'destroyed' cleave destroy --all-children worker
has 'fork-' cleave fork --paused worker
child=$(sed -n 's/.* \(fork-.*\)/\1/p' /tmp/out)
has "$child" cleave reset "$child"
has kept cleave snapshot "$child" kept
has 'destroyed' cleave destroy "$child" kept
has '^clean: ' cleave audit
[ "$failures" = 0 ]
