#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# xen.sh [-i INITRD] [-l WORDS] [-t SECONDS] [-x OPTION]...: boots Debian's own Xen 4.17 in QEMU, with the control
# domain's kernel as its domain 0 and that initial RAM file system. The console goes to standard output.
# xen.sh -r: records what tests/system/xc/ is answered there, in tests/system/xc/reference/ (`make xen-reference`).
#
# Domain 0 is PVH, as Cleave's control domain is: Xen wants an IOMMU for that, so the machine is a q35 with QEMU's
# AMD one. The CPU is an EPYC with SVM and without RDTSCP: QEMU reports an intercepted RDTSCP as RDTSC, and
# says not how long it is. SMAP, SMEP and idle states are off because QEMU's emulation of them is not Xen's.
set -eu
cd "$(dirname "$0")/.."

initrd=build/linux/initrd-reference.cpio
words="console=hvc0 nopvspin loglevel=4"
seconds=600
extra=
record=
while getopts i:l:rt:x: option; do
    case $option in
    i) initrd=$OPTARG ;;
    l) words=$OPTARG ;;
    r) record=1 ;;
    t) seconds=$OPTARG ;;
    x) extra="$extra $OPTARG" ;;
    *)
        sed -n '3,6s/^# //p' "$0" >&2
        exit 2
        ;;
    esac
done
package=build/debian/xen-hypervisor-4.17-amd64
folder=$(mktemp -d)
child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || :; rm -rf "$folder"' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice
gzip -dc "$package/boot/xen-4.17-amd64.gz" >"$folder/xen"

boot() { # boot CONSOLE
    # shellcheck disable=SC2086  # options
    timeout -k 5 "$seconds" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
        -machine q35 -device amd-iommu,intremap=on -accel tcg,thread=single -cpu EPYC,+svm,+npt,-rdtscp \
        -m 3G -smp 1 -serial stdio -kernel "$folder/xen" -append "dom0=pvh dom0_mem=512M bootscrub=0 \
smap=0 smep=0 cpuidle=0 max_cstate=0 cpufreq=none com1=115200 console=com1" \
        -initrd "build/linux/vmlinux-control $words,$initrd" $extra </dev/null >"$1" 2>&1 &
    child=$!
    status=0
    wait $child || status=$?
    child=
    return $status
}
if [ -z "$record" ]; then
    boot /dev/stdout
    exit
fi

words="$words tests"
seconds=1800
boot "$folder/console" || {
    tail -n 40 "$folder/console" >&2
    echo "QEMU ended with status $status" >&2
    exit 1
}
tr -d '\r' <"$folder/console" >"$folder/lines"
read -r _ xen <$package.version
read -r _ linux <build/debian/linux-image-amd64.version
for program in tests/system/xc/*.c; do
    name=$(basename "${program%.c}")
    grep -q "^answer $name: " "$folder/lines" || continue
    if ! grep -q "^--- $name: status [01], " "$folder/lines"; then
        grep -e "^--- $name: " "$folder/lines" >&2 || :
        echo "$name did not come to its end" >&2
        exit 1
    fi
    {
        echo "# make xen-reference: Xen $xen, Linux $linux, $(qemu-system-x86_64 --version | head -n 1)"
        sed -n "s/^answer $name: //p" "$folder/lines"
    } >tests/system/xc/reference/"$name".txt
done
wc -l tests/system/xc/reference/*.txt
