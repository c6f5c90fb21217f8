#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# demo.sh CASE: what `make run` plays (configs/run.sh), with less data: that it passes, that a wrong bit in one
# child makes it fail, and that a user at a terminal can look around afterwards.
# demo.sh --list names the cases, flip in a long check.
# shellcheck disable=SC2317  # functions are called by name
set -u
cd "$(dirname "$0")/.." || exit 2

folder=$(mktemp -d)
output=$folder/console
child=
# shellcheck disable=SC2317  # called by trap
finish() {
    [ -z "$child" ] || kill "$child" 2>/dev/null
    rm -rf "$folder"
}
trap finish EXIT
failed=0

complain() {
    echo "FAIL  $1"
    failed=1
}

wants() { # wants COUNT PATTERN: so many lines like that; the console's lines end in CR
    local found
    found=$(tr -d '\r' <"$output" | grep -cE -- "$2")
    [ "$found" = "$1" ] || complain "$found lines, not $1, like: $2"
}

plays() { # plays STATUS OPTION...
    local wanted=$1 status=0
    shift
    configs/run.sh -d -z 8 "$@" </dev/null >"$output" 2>&1 || status=$?
    cat "$output"
    [ "$status" = "$wanted" ] || complain "status $status, not $wanted"
}

case_pass() {
    plays 0 -n 5
    wants 5 '^control: [3-7] fork-[3-7]: exited, code 0: child [1-5]: code 0, forked after [1-9][0-9]* writes$'
    wants 5 '^control:   child [1-5]: right, forked after [1-9][0-9]* writes$'
    wants 1 '^control: demo: pass, 5 children$'
    wants 1 '^domain 32751 control: powered off'
    wants 6 'cleave: child [1-5]: sample [1-5], records .*: right$'
    wants 4 'cleave: child [1-4]: scan of 2065 records after [1-9][0-9]* writes: right$'
    wants 2 'cleave: child 5: sample 5, records .*: right$'
    wants 1 'cleave: parent: scan of 2065 records after [1-9][0-9]* writes: right$'
    wants 1 'cleave: never forked: scan of 2065 records after [1-9][0-9]* writes: right$'
    wants 0 'WRONG'
    wants 1 '^verdict: pass, worst exit code 0, audits clean$'
    # The last table: the template, which shares nearly all it has with five children, and the other guest.
    # shellcheck disable=SC2016  # the dollar is sed's
    sed -n '/^--- .* s: 8 domains/{h;d};H;${x;p}' "$output" >"$folder/table"
    local mib='[0-9]+\.[0-9]' some='[0-9]*[1-9][0-9]*\.[0-9]'
    output=$folder/table
    wants 1 "^ +1 +0 template +ended +1 +[1-9][0-9]* +$some +$some +$some +[1-9][0-9]*% +0%$"
    wants 1 "^ +2 +0 alone +ended +1 +[1-9][0-9]* +0\.0 +$some +0\.0 +[1-9][0-9]*% +0%$"
    wants 5 "^ +[3-7] +32751 fork-[3-7] +ended +1 +[1-9][0-9]* +$some +$some +$some +[1-9][0-9]*% +0%$"
    wants 1 "^pool main: $some MiB, $some free, $mib reserved$"
}

# Only the second child's data are wrong, and only its own check says so.
case_flip() {
    plays 1 -n 2 -f 1000
    wants 1 'cleave: child 2: scan of 2065 records after [1-9][0-9]* writes: 1 WRONG$'
    wants 3 'cleave: .*: scan of 2065 records after [1-9][0-9]* writes: right$'
    wants 1 '^control: [34] fork-[34]: exited, code 1: child 2: code 1, forked after '
    wants 1 '^control: demo: FAIL, not all was right$'
    wants 1 '^domain 1 template: exited, code 0$'
    wants 1 '^domain 32751 control: exited, code 1$'
    wants 1 '^domain 2 alone: exited, code 0$'
    wants 1 '^verdict: fail, worst exit code 1, audits clean$'
}

# comes PATTERN: until it is on the console, for four minutes at most
comes() {
    local i
    for ((i = 0; i < 480; i++)); do
        ! grep -qE -- "$1" "$output" || return 0
        sleep 0.5
    done
    complain "nothing came like: $1"
}

case_terminal() {
    local keys=$'\001\001\001' status=0 escape=$'\033'
    mkfifo "$folder/keys"
    : >"$output"
    mkdir "$folder/mine"
    echo 'a file of mine' >"$folder/mine/note"
    script -qefc "configs/run.sh -a $folder/mine -n 1 -z 8" "$output" <"$folder/keys" >/dev/null &
    child=$!
    exec 3>"$folder/keys"
    comes 'Your files are in /files'
    sleep 1
    # shellcheck disable=SC2016  # for the control domain's shell
    printf 'echo $((6 * 7)) times; cat /files/note; cleave fork template\r' >&3
    comes '42 times'
    comes 'a file of mine'
    comes '4 fork-4'
    # shellcheck disable=SC2016
    printf 'cleave wait template; echo waited $?\r' >&3 # until Ctrl-C, which is the control domain's, not the emulator's
    sleep 5
    printf '\003' >&3
    sleep 1
    # shellcheck disable=SC2016
    printf 'echo $((7 * 7)) more\r' >&3
    comes '49 more'
    printf %s "$keys" >&3
    comes 'typed characters go to the debug console'
    printf 'stat 14\b\r' >&3
    comes 'domain 1 template, parent 0, 1 vcpus'
    printf 'stop\r' >&3
    wait "$child" || status=$?
    child=
    cat "$output"
    [ "$status" = 0 ] || complain "status $status"
    # The table is at the top, each line in its place, the rest scrolls; at the end all of it does.
    grep -qF -- "${escape}7${escape}[1;1H--- " "$output" || complain "no table at the top"
    grep -qE -- "$escape\[3;1H +1 +0 template .*$escape\[5;1H +3 +32751 fork-3 .*$escape\[9r${escape}8" "$output" ||
        complain "no table of four domains in eight lines"
    grep -qF -- "${escape}[r" "$output" || complain "the screen is not given back"
    grep -qF -- $'stat 14\b \b' "$output" || complain "what is typed is not shown"
}

if [ "${1:-}" = --list ]; then
    printf 'pass\nterminal\n'
    [ -z "${CLEAVE_LONG:-}" ] || echo flip
    exit 0
fi
name=case_$(printf %s "${1:-}" | tr - _)
declare -F "$name" >/dev/null || exit 2
"$name"
exit "$failed"
