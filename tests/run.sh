#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# run.sh [-v] [-t NAME] JOB...: runs test programs and other checks, as many at once as there are
# CPUs, and counts what they found. The last line is "N passed, N failed[, N skipped]"; the status
# is 0 when something passed and nothing failed.
#
# A job is the path of a test program, which reports each of its tests, the same with " -a" (every
# allocation refused in turn, see tests/unit/alloc.h), or "name: command", which is one test and passes when the command's status is 0. -t chooses tests by name (see test_main.c) or
# jobs by "name" or the part before its dot. -v shows what passing jobs print.
set -u

# Runs job "$1"; $results holds a file per job. Called by xargs below.
run_job() {
    local job=$1 output report title command option='' status=0 start=$EPOCHREALTIME
    local verbose=${CHECK_VERBOSE:-}
    output=$(mktemp "$CHECK_RESULTS/XXXXXX.out")
    report=${output%.out}.report
    : >"$report"
    case $job in
    *": "*)
        title=${job%%: *}
        command=${job#*: }
        bash -c "$command" >"$output" 2>&1 </dev/null || status=$?
        if [ "$status" = 0 ]; then
            echo "pass $title -" >>"$report"
        else
            echo "fail $title -" >>"$report"
        fi
        ;;
    *)
        if [ "${job% -a}" != "$job" ]; then
            option=-a
            job=${job% -a}
        fi
        title=${job#build/}${option:+ $option}
        CLEAVE_TEST_REPORT=$report "$job" ${option:+"$option"} ${CHECK_NAME:+"$CHECK_NAME"} \
            >"$output" 2>&1 </dev/null || status=$?
        # With -t, a program that has no test of this name is no failure.
        if [ -n "$CHECK_NAME" ] && ! [ -s "$report" ] && grep -q 'no such test' "$output"; then
            return 0
        fi
        # It ended without saying which test failed, or before all of them: that is one failure.
        if [ "$status" -gt 1 ] || { [ "$status" = 1 ] && ! grep -q '^fail ' "$report"; } ||
            { ! [ -s "$report" ] && ! grep -q 'makes no allocation' "$output"; }; then
            echo "fail program $title" >>"$report"
            echo "FAIL  the program itself: status $status" >>"$output"
        fi
        verbose=$verbose$CHECK_NAME
        ;;
    esac

    local failed skipped total milliseconds word="ok  "
    failed=$(grep -c '^fail ' "$report")
    skipped=$(grep -c '^skip ' "$report")
    total=$(grep -vc '^part ' "$report")
    milliseconds=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
    exec 9>"$CHECK_RESULTS/lock"
    flock 9 # so that the lines of two jobs do not mix
    if [ "$failed" != 0 ]; then
        word=FAIL
    fi
    printf '%s  %s  %d ms' "$word" "$title" "$milliseconds"
    if [ "$total" != 1 ] || [ "$job" = "${job#*: }" ]; then
        printf '  %d passed' $((total - failed - skipped))
        [ "$failed" = 0 ] || printf ', %d failed' "$failed"
        [ "$skipped" = 0 ] || printf ', %d skipped' "$skipped"
    fi
    printf '\n'
    if [ -n "$verbose" ] || { [ "$failed" != 0 ] && [ "$job" != "${job#*: }" ]; }; then
        sed 's/^/      /' "$output"
    elif [ "$failed" != 0 ]; then
        # Of a program, only the tests that failed, with what they printed.
        awk '/^(ok  |skip)  / { show = 0 } /^FAIL/ { show = 1 }
            show { print "      " $0 }' "$output"
    fi
}

if [ "${1:-}" = --job ]; then
    run_job "$2"
    exit 0
fi

CHECK_NAME=
CHECK_VERBOSE=
while getopts vt: option; do
    case $option in
    v) CHECK_VERBOSE=1 ;;
    t) CHECK_NAME=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))

jobs=()
for job; do
    name=${job%%: *}
    if [ -z "$CHECK_NAME" ] || [ "$name" = "$job" ] || [ "$name" = "$CHECK_NAME" ] ||
        [ "${name%%.*}" = "$CHECK_NAME" ]; then
        jobs+=("$job")
    fi
done

CHECK_RESULTS=$(mktemp -d)
trap 'rm -rf "$CHECK_RESULTS"' EXIT
export CHECK_NAME CHECK_VERBOSE CHECK_RESULTS
if [ ${#jobs[@]} -gt 0 ]; then
    printf '%s\0' "${jobs[@]}" | xargs -0 -n 1 -P "$(nproc)" "$0" --job
fi

reports=$CHECK_RESULTS/all
cat "$CHECK_RESULTS"/*.report >"$reports" 2>/dev/null
passed=$(grep -c '^pass ' "$reports")
failed=$(grep -c '^fail ' "$reports")
skipped=$(grep -c '^skip ' "$reports")
if grep -q '^part ' "$reports"; then
    printf '\nNot every allocation was refused in turn:\n'
    sed -n 's/^part \([^ ]*\) \(.*\)/  \1  \2/p' "$reports" | sort
fi
if [ "$failed" -gt 0 ]; then
    printf '\nFailed:\n'
    sed -n 's/^fail \([^ ]*\) \(.*\)/  \1  \2/p' "$reports" | sort
fi
if [ $((passed + failed + skipped)) = 0 ]; then
    echo "No test matches${CHECK_NAME:+ $CHECK_NAME}."
fi
line="$passed passed, $failed failed"
[ "$skipped" = 0 ] || line="$line, $skipped skipped"
mkdir -p build
echo "$line" | tee build/check.result
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
