#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# init.sh: the first process of the control domain. It runs the programs in /tests, if there are any, and ends the
# machine; else it leaves its user at a prompt. only=NAME,... on the kernel's command line: these programs alone.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
while read -r module; do
    insmod "/modules/$module" || echo "module $module refused"
done </modules/order
mount -t xenfs xenfs /proc/xen
echo "control domain: $(uname -r), $(cat /proc/xen/capabilities)"
sleep 2 # until the others are up
only=$(sed -n 's/.*only=\([a-z,]*\).*/\1/p' /proc/cmdline)
for program in /tests/*; do
    [ -x "$program" ] || continue
    name=$(basename "$program")
    name=${name%.sh}
    case ,${only:-$name}, in
    *",$name,"*) ;;
    *) continue ;;
    esac
    "$program"
    echo "--- $name: status $?"
done
if [ ! -d /tests ]; then
    setsid cttyhack sh </dev/console >/dev/console 2>&1
fi
poweroff -f
