#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# found.sh: what a control domain finds that was started again (tests/control.sh restart). The first one leaves a fork
# behind, named "left"; the second finds that and the others by their names, and commands them.
# shellcheck source=tests/system/control/expect.sh
. /lib/expect.sh
grep -q 'only=[^ ]*found' /proc/cmdline || exit 0 # nowhere else

expect 0 ' template  *running' list
expect 0 ' worker  *running' list
expect 0 ' worker' stat worker
json 0 domains.0.name template stat template
json 0 domains.0.name worker stat worker
if cleave stat left >$out 2>&1; then
    echo "found: left"
    json 0 domains.0.state paused stat left
    json 0 domains.0.forked_from "$(value domains.0.id stat template)" stat left
    expect 0 ': reset' reset left
    expect 0 unpaused unpause left
    expect 0 destroyed destroy left
    expect 3 'no domain "left"' stat left
else
    left=$(value domains.0.id fork --paused template)
    expect 0 'renamed left' rename "$left" left
fi
child=$(value domains.0.id fork --paused template)
expect 0 paused pause worker
json 0 domains.0.state paused stat worker
expect 0 unpaused unpause worker
json 0 domains.0.state running stat worker
expect 0 "^$child fork-$child: destroyed" destroy "$child"
expect 0 '^tenant: 64.0 MiB' pool create tenant 64M
expect 0 '^tenant: deleted' pool delete tenant
expect 0 '^clean: ' audit
exit $((failures != 0))
