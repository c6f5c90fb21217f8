#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# expect.sh: what the scripts that drive the command cleave share; they end with status $((failures != 0)).
failures=0
out=/tmp/out

fail() {
    echo "FAILED $*"
    sed 's/^/    /' $out
    failures=$((failures + 1))
}

# expect STATUS TEXT ARGUMENT...: the command ends with STATUS, and prints a line with TEXT (a pattern).
expect() {
    status=$1
    text=$2
    shift 2
    cleave "$@" >$out 2>&1
    found=$?
    [ $found = "$status" ] || fail "cleave $*: status $found, not $status"
    grep -q -e "$text" $out || fail "cleave $*: no line with \"$text\""
}

# json STATUS PATH VALUE ARGUMENT...: with --json it prints one object, in which PATH has VALUE.
json() {
    status=$1
    path=$2
    value=$3
    shift 3
    cleave "$@" --json >$out 2>/dev/null
    found=$?
    [ $found = "$status" ] || fail "cleave $* --json: status $found, not $status"
    why=$(check-json "$path" "$value" <$out) || fail "cleave $* --json: $path: $why"
}

# value PATH ARGUMENT...: prints what stands there.
value() {
    path=$1
    shift
    cleave "$@" --json 2>/dev/null | check-json "$path"
}
