#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# rights.sh: what cleave grant and revoke change for the domain that they name. A child of "worker" asks for operations on
# others, as its data say, and hands back the status of each; 31 is NO_CAP. It leaves the domains as they were.
# shellcheck source=tests/system/control/expect.sh
. /lib/expect.sh

# heard TEXT: waits until the child has said that
heard() {
    tries=0
    until cleave console --once "$child" 2>$out | grep -q "rights: $1"; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || { fail "the child never came to: $1" && break; }
        sleep 1
    done
}

tries=0
until cleave console --once worker 2>/dev/null | grep -q 'forked from here on' || [ $tries = 60 ]; do
    sleep 1
    tries=$((tries + 1))
done
domains=$(value domains info)
template=$(value domains.0.id stat template)
worker=$(value domains.0.id stat worker)
# At first it has no right: what its parent has is not its own. Then it forks until it may no more.
{
    echo "template=$template worker=$worker"
    cat <<'END'
try() { note="$note $1 $(cleave-guest try "$@")"; }
may_fork() { [ "$(cleave-guest try fork $template)" = 0 ]; }
note=:
try fork $template
say "rights: none"
tries=0
until may_fork || [ $tries = 60 ]; do sleep 1; tries=$((tries + 1)); done
try fork $template
for what in pause unpause stat reset destroy; do try $what $template; done
try fork $worker
try fork 32751
say "rights: fork"
tries=0
while may_fork && [ $tries -lt 60 ]; do sleep 1; tries=$((tries + 1)); done
try fork $template
END
} >/tmp/orders
expect 0 'worker: has rights over' grant worker template fork
child=$(value domains.0.id fork --data=/tmp/orders worker)
heard none
expect 0 'has no rights over' revoke worker template
expect 0 "fork-$child: has rights over $template template" grant "$child" template fork
heard fork
expect 0 "fork-$child: has no rights over $template template" revoke "$child" template
refused='pause 31 unpause 31 stat 31 reset 31 destroy 31 fork 31 fork 31'
expect 0 "code 0: child 1: code 0, : fork 31 fork 0 $refused fork 31\$" wait --timeout=90 "$child"
json 0 domains.0.state running stat template
json 0 domains.0.made_by "$child" stat "$(cleave list | awk -v from="$template" '$5 == from { print $1; exit }')"
expect 0 destroyed destroy --all-children template
expect 0 destroyed destroy "$child"
json 0 domains "$domains" info
exit $((failures != 0))
