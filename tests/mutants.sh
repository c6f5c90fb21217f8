#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Breaks the core on purpose and expects the tests to notice. A mutant is a file in tests/mutants/:
#
#   NAME.patch   text with a line "Test: suite.name [suite.name...]", then a diff (patch -p1)
#   NAME.sed     comments "# File: hv/mm/x.c" (or a pattern, of which some file must change) and
#                "# Test: ...", then a sed script for it
#
# It is caught when at least one of its tests fails. One that does not apply, or does not build, or
# whose tests fail on the unbroken core too, counts as survived.
#
#   mutants.sh               all, two at once: a table, then "N caught, N survived"
#   mutants.sh NAME...       these
#   mutants.sh --one NAME    one, without the run on the unbroken core (as `make check`)
set -u
cd "$(dirname "$0")/.." || exit 2

# Time limit of each test on a mutant; a broken core may well hang.
export CLEAVE_TEST_SECONDS=${CLEAVE_TEST_SECONDS:-30}
unset CLEAVE_LONG MAKEFLAGS MAKELEVEL T

header() { # header FIELD FILE: the field's words
    sed -n "s/^\(# \)\?$1: *//p" "$2" | head -n 1
}

file_of() { # file_of NAME: the mutant's file
    find tests/mutants -name "$1.patch" -o -name "$1.sed" | head -n 1
}

# Copies sources and objects, so that only what the mutant changes is built again.
copy_tree() {
    mkdir -p "$1" &&
        tar --format=posix -cf - --exclude='*_test' Makefile hv tests configs build/gcc-debug |
        tar -xf - -C "$1"
}

apply() { # apply MUTANT FILE, in the copied tree
    case $1 in
    *.patch) patch -p1 --batch --fuzz=2 <"$1" >"$2" 2>&1 ;;
    *.sed)
        local target changed=1
        for target in $(header File "$1"); do
            cp -p "$target" "$target.before" && sed -i -f "$1" "$target" 2>"$2" || return 1
            if cmp -s "$target" "$target.before"; then
                mv "$target.before" "$target" # what did not change is not built again
            else
                changed=0
            fi
        done
        return "$changed"
        ;;
    esac
}

# Runs `make check T=test` for each test in directory $1; prints those that failed, and not just
# because a build broke. Status 2: a build broke, 3: a test does not exist.
failing_tests() {
    local directory=$1 test output
    shift
    for test; do
        output=$(CLEAVE_NO_INSTALL=1 make -C "$directory" --no-print-directory check T="$test" 2>&1)
        if ! grep -q '^[0-9]* passed, [0-9]* failed' <<<"$output"; then
            printf '%s\n' "$output" | grep -m 5 -E 'error|Error' >&2
            return 2
        elif grep -q '^0 passed, 0 failed' <<<"$output"; then
            echo "no test $test" >&2
            return 3
        elif ! grep -q '^[0-9]* passed, 0 failed' <<<"$output"; then
            echo "$test"
        fi
    done
}

one() { # one NAME: prints its line of the table; status 0 when caught
    local name=$1 file tests directory caught status=0 verdict
    file=$(file_of "$name")
    if [ -z "$file" ]; then
        printf '%-36s no such mutant\n' "$name"
        return 1
    fi
    tests=$(header Test "$file")
    directory=build/mutants/$name
    rm -rf "$directory"
    copy_tree "$directory"
    if [ -z "$tests" ]; then
        verdict="SURVIVED: it names no test"
    elif ! (cd "$directory" && apply "$file" apply.log); then
        verdict="SURVIVED: it does not apply"
        cat "$directory/apply.log" >&2
    else
        # shellcheck disable=SC2086  # a list of words
        caught=$(failing_tests "$directory" $tests 2>"$directory/errors") || status=$?
        case $status in
        0) verdict=${caught:-SURVIVED} ;;
        2) verdict="SURVIVED: it does not build" ;;
        *) verdict="SURVIVED: $(cat "$directory/errors")" ;;
        esac
        [ "$status" = 0 ] || cat "$directory/errors" >&2
    fi
    rm -rf "$directory"
    printf '%-36s %s\n' "$name" "${verdict//$'\n'/ }"
    case $verdict in SURVIVED*) return 1 ;; esac
}

if [ "${1:-}" = --one ]; then
    one "$2"
    exit
fi

if [ $# = 0 ]; then
    for file in tests/mutants/*.patch tests/mutants/*.sed; do
        [ ! -e "$file" ] || set -- "$@" "$(basename "${file%.*}")"
    done
fi
names=()
for name; do
    names+=("$name")
done

# What fails on the unbroken core catches nothing.
mapfile -t wanted < <(for name in "${names[@]}"; do
    header Test "$(file_of "$name")" 2>/dev/null
done | tr -s ' ' '\n' | sort -u)
sound=$(failing_tests . "${wanted[@]}")
if [ -n "$sound" ]; then
    echo "These fail without a mutant, too: ${sound//$'\n'/ }"
    exit 1
fi

printf '%-36s %s\n' mutant "caught by"
table=$(mktemp)
trap 'rm -f "$table"' EXIT
printf '%s\0' "${names[@]}" | xargs -0 -r -n 1 -P "$(nproc)" "$0" --one | tee "$table"
survived=$(grep -c -E ' SURVIVED| no such mutant' "$table")
echo "$(($(wc -l <"$table") - survived)) caught, $survived survived"
[ "$survived" = 0 ]
