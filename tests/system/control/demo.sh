#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# demo COUNT: forks the guest "template" while it is written to (tests/system/linux/init.sh, forks=noticed), waits for the
# children and judges: each ended with code 0, one of each index, and all saw one instant, between the writes that the
# parent counted before the fork and after it; then the parent's own check, and that of the guest "alone". The status is
# 0 when all was right.
count=$1
show() { # show COMMAND...: as somebody types it
    echo "# $*"
    "$@"
}

# said PATTERN: what the template wrote last of this, in \1; waits until it is there
said() {
    until cleave console --once template 2>/dev/null | tr -d '\r' | sed -n "s/.*cleave: $1.*/\\1/p" | tail -n 1 |
        grep .; do
        sleep 1
    done
}

show cleave list
said 'workload: \(forked from here on\)' >/dev/null
show cleave fork -n "$count" template || exit 1
show cleave list
show cleave wait --all-children template | tee /tmp/ends
numbers=$(said 'parent: forked after \([0-9]* to [0-9]*\) writes')
echo "template was forked after $numbers writes; the children say:"
# ID NAME: exited, code 0: child INDEX: code 0, forked after WRITES writes
sed -n 's/.*: exited, code 0: child \([0-9]*\): code 0, forked after \([0-9]*\) writes$/\1 \2/p' /tmp/ends | sort -n |
    awk -v count="$count" -v from="${numbers%% *}" -v to="${numbers##* }" '
        { print "  child " $1 ": right, forked after " $2 " writes" }
        $1 != NR || $2 < from || $2 > to + 1 { bad = 1 }
        NR == 1 { least = most = $2 }
        { least = $2 < least ? $2 : least; most = $2 > most ? $2 : most }
        END { exit bad || NR != count || most - least > 1 }'
status=$?
scan=$(said 'parent: \(scan of .*\)')
echo "  parent: $scan"
case $scan in
*right) ;;
*) status=1 ;;
esac
show cleave wait alone | grep ': exited, code 0: never forked: code 0' || status=1
if [ "$status" = 0 ]; then
    echo "demo: pass, $count children"
else
    echo "demo: FAIL, not all was right"
fi
exit "$status"
