#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# init.sh: the first process of the control domain.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
while read -r module; do
    insmod "/modules/$module" || echo "module $module refused"
done </modules/order
mount -t xenfs xenfs /proc/xen
echo "control: $(uname -r), $(cat /proc/xen/capabilities)"
for program in /tests/*; do
    [ -x "$program" ] && { echo "--- $program"; $program; echo "--- $program: status $?"; }
    dmesg | tail -n 6
done
setsid cttyhack sh </dev/console >/dev/console 2>&1
poweroff -f
