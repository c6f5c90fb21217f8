#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# control.sh: what calls of libxenctrl cost in instructions in Cleave's control domain (control.NAME), and in domain 0
# of Debian's Xen (xen.NAME), as lines "figure NAME VALUE UNIT [GOAL]": Cleave's are to be at most Xen's. Boots the same
# kernel and program (control/figures.c) on QEMU with one CPU, of the same model for both, and -icount shift=0; a
# plugin (control/count.c) counts between the program's marks. Figures are medians, without the iterations of REP
# instructions; NAME.hypervisor is the hypervisor's part of NAME. CLEAVE_IMAGE names another image than
# build/gcc-release/cleave.elf.
# control.sh -p FIGURE cleave|xen: a profile instead, how many instructions one execution of the figure of that number
# (in figures.c) takes in which functions.
set -eu
cd "$(dirname "$0")/../.."

profile=
while getopts p: option; do
    case $option in
    p) profile=$OPTARG ;;
    *)
        sed -n '3,10s/^# //p' "$0" >&2
        exit 2
        ;;
    esac
done
shift $((OPTIND - 1))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice
image=${CLEAVE_IMAGE:-build/gcc-release/cleave.elf}
words="console=hvc0 nopvspin loglevel=4 tests${profile:+ symbols}"
options="-icount shift=0,sleep=off -rtc base=2026-01-01,clock=vm"
cpu=EPYC,+svm,+npt,-rdtscp
plugin() { # plugin NAME LOW HIGH
    echo "-plugin build/linux/count.so,out=$folder/$1.marks,low=$2,high=$3${profile:+,profile=$profile}"
}
run_cleave() {
    cat >"$folder/boot.conf" <<END
pool main size=all
domain control pool=main kernel=vmlinux-control initrd=initrd-figures.cpio memory=512M order=2 vcpus=1 control command="$words"
option console=control stop
END
    low=$(nm "$image" | awk '$3 == "image_start" { print $1 }')
    high=$(nm "$image" | awk '$3 == "image_end" { print $1 }')
    configs/qemu.sh -a tcg -m 3G -s 1 -t 600 -x "$options -cpu $cpu" -x "$(plugin cleave "$low" "$high")" \
        "$image" "$folder/boot.conf" build/linux/vmlinux-control build/linux/initrd-figures.cpio
}
run_xen() {
    tests/xen.sh -i build/linux/initrd-figures.cpio -l "$words" -t 900 -x "$options" \
        -x "$(plugin xen ffff82d040000000 ffff82d080000000)"
}
boots() { # boots cleave|xen: its console and marks
    status=0
    "run_$1" >"$folder/$1.console" 2>&1 || status=$?
    tr -d '\r' <"$folder/$1.console" >"$folder/$1.lines"
    if ! grep -q '^--- figures: status 0, ' "$folder/$1.lines"; then
        tail -n 40 "$folder/$1.lines" >&2
        echo "$1: the machine ended with status $status" >&2
        exit 1
    fi
}
figures() { # figures cleave|xen: "NAME MEDIAN HYPERVISOR REP INTERCEPTED" of each
    awk '
        $1 == "measures" { name[$2] = $3; order[++count] = $2; next }
        $1 != "mark" { next }
        { at = $4 + $5; inside = $5; rep = $6 + $7; calls = $8 }
        $2 == "begin" { now = $3; entered = 0; first = 0; begun = at; begun_inside = inside; begun_rep = rep; begun_calls = calls }
        $2 == "enter" && now && !entered { entered = 1; start = at; start_inside = inside; start_rep = rep; start_calls = calls }
        $2 == "return" && now && !first { stop = at; stop_inside = inside; stop_rep = rep; stop_calls = calls }
        $2 == "first" && now && !first { first = 1; stop = at; stop_inside = inside; stop_rep = rep; stop_calls = calls }
        $2 == "end" && now {
            if (!entered) { # a call of the kernel, without an ioctl
                start = begun; start_inside = begun_inside; start_rep = begun_rep; start_calls = begun_calls
                stop = at; stop_inside = inside; stop_rep = rep; stop_calls = calls
            }
            if (first || name[now] !~ /_to_first$/) {
                n = ++times[now]
                whole[now, n] = stop - start
                within[now, n] = stop_inside - start_inside
                reps[now, n] = stop_rep - start_rep
                intercepts[now, n] = stop_calls - start_calls
            }
            now = 0
        }
        function median(values, figure,    i, j, t, n, v) {
            n = times[figure]
            for (i = 1; i <= n; i++) {
                v[i] = values[figure, i]
                for (j = i; j > 1 && v[j - 1] > v[j]; j--) {
                    t = v[j]; v[j] = v[j - 1]; v[j - 1] = t
                }
            }
            return v[int((n + 1) / 2)]
        }
        END {
            for (i = 1; i <= count; i++) {
                f = order[i]
                if (times[f]) {
                    printf "%s %d %d %d %d\n", name[f], median(whole, f), median(within, f), median(reps, f),
                        median(intercepts, f)
                }
            }
        }' "$folder/$1.lines" "$folder/$1.marks"
}

if [ -n "$profile" ]; then
    boots "$1"
    {
        nm build/linux/figures | sed -n 's/ [tTwW] / /p'
        sed -n 's/ [tTwW] / /p' build/debian/linux-image-amd64/boot/System.map-*
        if [ "$1" = cleave ]; then
            nm "$image" | sed -n 's/ [tTwW] / /p'
        else
            sed -n 's/^\(ffff82d0[0-9a-f]*\) [tTwW] /\1 /p' "$folder/xen.lines"
        fi
    } | sort >"$folder/symbols"
    times=$(grep -c "^mark begin $profile " "$folder/$1.marks")
    sed -n 's/^at //p' "$folder/$1.marks" | sort - "$folder/symbols" | awk -v times="$times" '
        $2 !~ /^[0-9]+$/ { name = $2; next }
        { sum[name] += $2; all += $2 }
        END {
            printf "%9d all\n", all / times
            for (name in sum) { printf "%9d %s\n", sum[name] / times, name }
        }' | sort -rn | head -n 40
    exit
fi

boots cleave
figures cleave >"$folder/cleave"
: >"$folder/xen"
if [ -s build/debian/xen-hypervisor-4.17-amd64.version ]; then
    boots xen
    figures xen >"$folder/xen"
else
    echo "control.sh: Debian's Xen is not there (build/debian/): no figures of it, nothing to compare with" >&2
fi
# Memory is zeroed by Cleave when it is populated, by REP; by Xen when it is populated again, by a loop. QEMU does not
# say how long an intercepted instruction is, so Xen decodes each hypercall, CPUID, HLT and access to an MSR, which it
# does not on a real CPU, and Cleave does not here: for the goal, what a null hypercall takes Xen more than Cleave is
# taken off for each of them (some MSRs are not even intercepted).
awk '
    function figure(name, value, goal) { printf "figure %s %d instructions%s\n", name, value, goal }
    function known(name, value, within,    goal) {
        if (name in xen && name != "null_hypercall") {
            goal = sprintf(" %d", xen[name] - calls[name] * (xen["null_hypercall"] - null))
        }
        figure("control." name, value, goal)
        figure("control." name ".hypervisor", within, "")
    }
    FILENAME == ARGV[1] {
        name = $1 == "populate_256m_used" ? "populate_256m_zeroed" : $1
        xen[name] = name == "populate_256m_zeroed" ? $2 + $4 : $2
        calls[name] = $5
        figure("xen." name, xen[name], "")
        figure("xen." name ".hypervisor", xen[name] - $2 + $3, "")
        next
    }
    $1 == "null_hypercall" { null = $2 }
    $1 == "populate_256m_used" { next }
    { known($1, $2, $3) }
    $1 == "populate_256m" { known("populate_256m_zeroed", $2 + $4, $3 + $4) }
    ' "$folder/xen" "$folder/cleave"
