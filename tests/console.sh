#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# console.sh: boots guests on QEMU and types each command of the debug console on the serial port; the
# answers must be there, and `stop` must end the machine with code 0.
set -eu
cd "$(dirname "$0")/.."

conf=$(mktemp -d)
trap 'rm -rf "$conf"' EXIT
sed -e '/^option stop/d' -e 's/size=128M/size=256M/' tests/guests/hello/boot.conf >"$conf/boot.conf"
{
    echo 'domain looker pool=main kernel=hello.elf memory=64M command=look'
    for i in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
        echo "domain idle-$i pool=main kernel=hello.elf memory=8M paused"
    done
    echo 'option top=3'
} >>"$conf/boot.conf"
type_all() {
    sleep 4
    for line in help list "stat 1" "stat 77" "stat x" "fork 1" "fork 77" "wait 1" "ended 1" "ended 1 to 9" "ended children 1" nothing audit \
        "stat 2" "stat 2" "stat 2" "stat 2" "stat 2" "stat 2" "pause 2" list "stat 2" "unpause 2" "stat 2" "stat 2" list stop; do
        echo "$line"
        sleep 0.5
    done
    sleep 5
}
status=0
type_all | configs/qemu.sh -i -s 2 -t 60 build/gcc-debug/cleave.elf "$conf/boot.conf" \
    build/guests/hello.elf >"$conf/output" 2>&1 || status=$?
cat "$conf/output"
failed=0
# A name that is not one to choose is refused before anything runs.
sed 's/domain hello/domain domain-1/' tests/guests/hello/boot.conf >"$conf/wrong.conf"
mv "$conf/wrong.conf" "$conf/boot.conf"
if configs/qemu.sh -t 60 build/gcc-debug/cleave.elf "$conf/boot.conf" build/guests/hello.elf >"$conf/wrong" 2>&1; then
    echo "FAIL  a domain named domain-1 is booted"
    failed=1
fi
grep -q "^boot: domain domain-1: not letters, .* \"domain-\" in front" "$conf/wrong" || { cat "$conf/wrong"; failed=1; }
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
# A call of the looker's on another CPU mostly holds it: each command gets it all the same.
answers=$(grep -cE '^domain 2 looker, parent 0, 1 vcpus: |^ +2 +0 looker {11}(running|paused) ' "$conf/output")
[ "$answers" = 12 ] || { echo "FAIL  $answers answers of 9 to stat 2 and 3 to list"; failed=1; }
wants '^ +2 +0 looker {11}paused '
wants '^--- [0-9]+ s: 17 domains, 1 not shown'
wants '^  memory: [1-9][0-9]* KiB charged'
wants '^no domain 77'
wants '^audit: pool main: clean'
wants '^machine: stop 0'
[ "$status" = 0 ] || { echo "FAIL  status $status"; failed=1; }
exit $failed
