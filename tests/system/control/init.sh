#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# init.sh: the first process of the control domain. It does what the words on the kernel's command line say, one after
# the other, and ends the domain.
#   tests        runs the programs in /tests; only=NAME,...: these alone
#   crash        leaves a core of a Linux guest in its memory (crash.sh)
#   demo=COUNT   forks the guest "template" as often, and judges what the children say (demo.sh)
#   shell        leaves its user at a prompt
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

run_tests() {
    sleep 2 # until the others are up
    for program in /tests/*; do
        name=$(basename "$program" .sh)
        case ,${only:-$name}, in
        *,"$name",*) ;;
        *) continue ;;
        esac
        began=$(date +%s)
        "$program"
        echo "--- $name: status $?, $(($(date +%s) - began)) s"
    done
}

hint() {
    cat <<END

This is the control domain, a stock Debian kernel. "template" goes on writing; try:
  cleave list                      who there is
  cleave fork -n 4 template        four more of it, running
  cleave stat template             what it holds alone and shares
  cleave map fork-5                by which leaves its memory is mapped
  cleave destroy --all-children template
  cleave create --kernel=/guest/vmlinuz --initrd=/guest/initrd --cmdline="console=hvc0" --memory=256M --name=mine
  cleave console mine              what it printed
  cleave --help                    all commands
Ctrl-C ends what runs here; "poweroff" ends this domain. Three Ctrl-A lead to the debug console, and then to each domain; "stop" there ends all.
END
    [ ! -d /files ] || echo "Your files are in /files."
}

only=
code=0
# shellcheck disable=SC2013  # words are meant
for word in $(cat /proc/cmdline); do
    case $word in
    only=*) only=${word#*=} ;;
    esac
done
# shellcheck disable=SC2013
for word in $(cat /proc/cmdline); do
    case $word in
    tests) run_tests ;;
    crash)
        crash-core
        echo "--- crash: status $?"
        ;;
    demo=*) demo "${word#*=}" || code=1 ;;
    shell)
        hint
        setsid cttyhack sh </dev/console >/dev/console 2>&1
        ;;
    esac
done
[ "$code" = 0 ] || cleave-guest exit "$code"
poweroff -f
