#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# crash.sh: leaves a core of a fork of "template" in this domain's memory, from where `carry in` takes it. The fork says
# in its log which threads it has, and computes on CPU 1 until it is dumped; the dump copies nothing.
# shellcheck source=tests/system/control/expect.sh
. /lib/expect.sh

until_said() { # until_said DOMAIN TEXT: it has printed that
    tries=0
    until cleave console --once "$1" 2>/dev/null | grep -q "$2"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { fail "$1 does not say: $2" && return; }
        sleep 1
    done
}

until_said template 'forked from here on'
cat >/tmp/orders <<'END'
cleave-guest busy 100000 1 >/tmp/busy & sleep 1
for thread in /proc/[0-9]*/task/*; do
    read -r name <$thread/comm
    say "thread ${thread##*/} $name"
done
say "these are all"
wait
END
child=$(value domains.0.id fork --data=/tmp/orders template)
until_said "$child" 'these are all'
sleep 2 # CPU 0 has nothing to do
expect 0 paused pause "$child"
copied=$(value domains.0.copied_bytes stat "$child")
alone=$(value domains.0.exclusive_bytes stat "$child")
expect 0 ' bytes in /tmp/core' dump -o /tmp/core "$child"
[ "$(value domains.0.copied_bytes stat "$child")" = "$copied" ] || fail "the dump copied"
[ "$(value domains.0.exclusive_bytes stat "$child")" = "$alone" ] || fail "the dump made pages the fork's own"
expect 0 destroyed destroy "$child"
carry out </tmp/core >/tmp/carried || fail "it cannot be carried"
echo "core: $(wc -c </tmp/core) bytes"
exit $((failures != 0))
