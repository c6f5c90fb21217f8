#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# lint.sh CHECK: one of the checks below; prints what it objects to. lint.sh --list names them.
# `make lint` runs all and hands over the compiler flags; `make analyze` runs one that is not named.
set -u
cd "$(dirname "$0")/.." || exit 2

c_files() { find hv guest-agent tools tests -name '*.[ch]' | sort; }
assembly_files() { find hv tests -name '*.S' -o -name '*.inc' -o -name '*.lds' | sort; }
shell_files() { find configs hv tests tools .ci/run -name '*.sh' -o -name '*.bash' -o -path .ci/run | sort; }

# Prints what stands on its standard input after a heading; fails when there is anything.
objections() {
    local text
    text=$(cat)
    if [ -n "$text" ]; then
        printf '%s\n%s\n' "$1:" "$text"
        return 1
    fi
}

check_format() {
    c_files | xargs -r clang-format --dry-run -Werror 2>&1 | awk -F: '
        / error: / { places[$1]++ }
        END { for (file in places) print "  " file ": " places[file] " places" }' |
        objections "not as \`make format\` writes it"
}

# Bug patterns, names, braces and the length of functions: see .clang-tidy.
check_tidy() {
    local extra="-DMM_DEBUG -DMM_HOOKS -I hv/geometry/real"
    tidy() { # tidy FLAGS, with the files on standard input
        # shellcheck disable=SC2016  # the inner shell's
        xargs -r -n 4 -P "$(nproc)" sh -c 'flags=$1; shift
            clang-tidy --quiet ${LINT_CHECKS:+--checks="$LINT_CHECKS"} "$@" -- $flags 2>&1' \
            sh "$1 $extra" |
            grep -v -E '^[0-9]+ (warnings?|errors?) |^Suppressed|^Use -header-filter'
        return "$((PIPESTATUS[0] != 0))"
    }
    local status=0
    find hv/mm -name '*.c' | tidy "$CORE_FLAGS" || status=1
    find hv/x86 hv/kernel tests/boot -name '*.c' | tidy "$X86_FLAGS" || status=1
    find hv/host -name '*.c' | tidy "$HOSTED_FLAGS" || status=1
    find tests/guests -name '*.c' | tidy "$GUEST_FLAGS" || status=1
    find tools tests/tools -name '*.c' | tidy "$TOOL_FLAGS -I tools/cleave" || status=1
    find tests/trace -name '*.c' | tidy "$TRACE_FLAGS" || status=1
    find tests -name '*.c' -not -path 'tests/small/*' -not -path 'tests/boot/*' -not -path 'tests/guests/*' \
        -not -path 'tests/trace/*' -not -path 'tests/tools/*' |
        tidy "$TEST_FLAGS -DTEST_VARIANT=\"lint\"" || status=1
    return $status
}

# clang's path analysis: slow, and not always right. Advice, no part of `make check`.
check_analyze() {
    export LINT_CHECKS='-*,clang-analyzer-core.*,clang-analyzer-unix.*'
    check_tidy
}

check_shell() { shell_files | xargs shellcheck; }

check_spdx() {
    { c_files; assembly_files; shell_files; echo Makefile; } | xargs grep -L 'SPDX-License-Identifier: ' |
        objections "no SPDX line"
}

# hv/mm/ knows neither the machine nor a process: its own headers, the ABI, what is freestanding.
check_core() {
    local status=0 own
    own=$(basename -a hv/mm/*.h | paste -sd '|')
    grep -nE '^[[:space:]]*#[[:space:]]*include' hv/mm/*.[ch] |
        grep -vE '<(geometry|stdbool|stddef|stdint|limits|stdalign)\.h>|"cleave/[a-z_]+\.h"' |
        grep -vE "\"($own)\"" |
        objections "the core includes what it must not know" || status=1
    grep -nE '\b(asm|__asm__|__asm|__builtin_ia32_[a-z0-9_]*)\b' hv/mm/*.[ch] |
        objections "assembly in the core" || status=1
    return $status
}

# What the core's objects ask the linker for: the port, the entry formats and four functions that
# compilers call on their own.
check_symbols() {
    local objects=build/gcc-release/real/hv joined
    joined=$(mktemp)
    # shellcheck disable=SC2046
    ld -r -o "$joined" $(find $objects/mm -name '*.o') $objects/x86/{vmx/ept,svm/npt}.o &&
        nm -u "$joined" | grep -vE ' U (port_[a-z_]+|memcpy|memmove|memset|memcmp)$' |
        objections "the core calls what is not in its port"
    local status=$?
    rm -f "$joined"
    return $status
}

# Says what is long. Files past 700 lines are refused; functions are clang-tidy's.
check_sizes() {
    { c_files; assembly_files; } | xargs wc -l | awk '
        $2 == "total" { next }
        { lines += $1; files++ }
        $1 > 600 { print "  " $1 " lines: " $2 }
        $1 > 700 && $2 ~ /^hv/ { bad = 1 }
        END { print lines " lines in " files " files"; exit bad }'
}

checks="tidy format shell spdx core symbols sizes"
case " $checks analyze " in
*" ${1:-} "*) "check_$1" ;;
*)
    [ "${1:-}" = --list ] || exit 2
    echo "$checks"
    ;;
esac
