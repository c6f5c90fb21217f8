#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# debug.sh NAME PROGRAM...: starts gdb on the first test of that name. It stops where a check fails
# or the core panics; `up` shows the test.
set -eu

name=$1
shift
for program; do
    full=$("$program" --list "$name" | head -n 1)
    if [ -n "$full" ]; then
        echo "$full in $program"
        CLEAVE_TEST_NOFORK=1 exec gdb -q -ex 'set breakpoint pending on' -ex 'break test_failed' \
            -ex 'break port_panic' -ex run --args "$program" "$full"
    fi
done
echo "No test matches $name." >&2
exit 1
