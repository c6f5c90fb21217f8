#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# init.sh: the first process of a Linux guest. What it says goes to the kernel's log, each line with "cleave: "
# in front, so that it can be read on any console; then it powers the machine off.
/bin/busybox --install -s /bin
export PATH=/bin

mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys

say() { echo "cleave: $*" >/dev/kmsg; }

while read -r module; do
    insmod "/modules/$module" 2>/dev/null || say "module $module refused"
done </modules/order
say "init: $(uname -r), $(grep -c '^processor' /proc/cpuinfo) CPUs, $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
say "init: done"
poweroff -f
