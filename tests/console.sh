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
    for line in help list "stat 1" "stat 77" "stat x" "fork 1" "fork 77" "wait 1" "ended 1" "ended 1 to 9" "ended children 1" nothing audit stop; do
        echo "$line"
        sleep 1
    done
    sleep 5
}
status=0
type_all | configs/qemu.sh -i -t 60 build/gcc-debug/cleave.elf "$conf/boot.conf" \
    build/guests/hello.elf >"$conf/output" 2>&1 || status=$?
cat "$conf/output"
failed=0
wants() {
    if ! grep -qE -- "$1" "$conf/output"; then
        echo "FAIL  no line like: $1"
        failed=1
    fi
}
wants '^  stat +ID'
wants '^usage: stat ID'
wants '^fork 1: refused: status [1-9][0-9]*, domain is 1 '
wants '^no domain 77'
wants '^usage: wait WHOM'
wants '^domain 1 hello of 0: exited, code 0'
wants '^no domain is a fork of 1'
wants '^no such command: nothing; help lists them'
wants '^ +1 +0 hello +ended '
wants '^domain 1 hello, parent 0, 1 vcpus: [1-9][0-9]* exits, [1-9][0-9]* hypercalls'
wants '^  memory: [1-9][0-9]* KiB charged'
wants '^no domain 77'
wants '^audit: pool main: clean'
wants '^machine: stop 0'
[ "$status" = 0 ] || { echo "FAIL  status $status"; failed=1; }
exit $failed
