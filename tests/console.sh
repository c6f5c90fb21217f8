#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# console.sh: boots a guest on QEMU and types each command of the debug console on the serial port; the
# answers must be there, and `stop` must end the machine with code 0.
set -eu
cd "$(dirname "$0")/.."

conf=$(mktemp -d)
trap 'rm -rf "$conf"' EXIT
grep -v '^option stop' tests/guests/hello/boot.conf >"$conf/boot.conf"
type_all() {
    sleep 4
    for line in help list "stat 1" "stat 77" audit stop; do
        echo "$line"
        sleep 1
    done
    sleep 5
}
status=0
type_all | configs/qemu.sh -i -t 30 build/gcc-debug/cleave.elf "$conf/boot.conf" \
    build/guests/hello.elf >"$conf/output" 2>&1 || status=$?
cat "$conf/output"
failed=0
wants() {
    if ! grep -qE -- "$1" "$conf/output"; then
        echo "FAIL  no line like: $1"
        failed=1
    fi
}
wants '^list, stat ID, audit, stop'
wants '^ +1 +0 hello +ended '
wants '^domain 1 hello, parent 0, 1 vcpus: [1-9][0-9]* exits, [1-9][0-9]* hypercalls'
wants '^  memory: [1-9][0-9]* KiB charged'
wants '^no domain 77'
wants '^audit: pool main: clean'
wants '^machine: stop 0'
[ "$status" = 0 ] || { echo "FAIL  status $status"; failed=1; }
exit $failed
