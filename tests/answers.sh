#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# answers.sh CONSOLE: compares what the programs of tests/system/xc/ were answered, by the lines "answer PROGRAM: ..."
# of that console, with Xen's answers in tests/system/xc/reference/PROGRAM.txt. What is meant to differ is in
# differences.txt there, which says how it is read. Prints each line that differs otherwise; the status is 0 when
# there is none.
set -u
cd "$(dirname "$0")/.." || exit 2

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
reference=${CLEAVE_REFERENCE:-tests/system/xc/reference}
status=0
grep -v '^#' "$reference/differences.txt" | grep . >"$folder/rules"
for file in "$reference"/*.txt; do
    name=$(basename "$file" .txt)
    [ "$name" != differences ] || continue
    sed -n "s/^$name: //p" "$folder/rules" >"$folder/own"
    sed -n "s/^answer $name: //p" "$1" >"$folder/here"
    # What is expected here, where a rule fits; and what answers here have no question there.
    awk -v name="$name" '
        FILENAME == ARGV[1] {
            at = index($0, " -> ")
            from[++rules] = substr($0, 1, at - 1)
            to[rules] = substr($0, at + 4)
            next
        }
        /^#/ { next }
        {
            line = $0
            for (i = 1; i <= rules; i++) {
                if (match($0, "^(" from[i] ")$")) {
                    used[i] = 1
                    question = $0
                    sub(/: [^:]*$/, "", question)
                    line = to[i] == "nothing" ? "" : question ": " to[i]
                    break
                }
            }
            if (line != "") {
                print line
            }
        }
        END {
            for (i = 1; i <= rules; i++) {
                if (!used[i] && from[i] != "nothing") {
                    print "differences.txt: " name ": fits no line: " from[i] >"/dev/stderr"
                    bad = 1
                }
            }
            exit bad
        }' "$folder/own" "$file" >"$folder/expected" || status=1
    sed -n 's/^nothing -> //p' "$folder/own" >"$folder/only"
    grep -v -x -F -f "$folder/only" "$folder/here" >"$folder/compared"
    if ! diff "$folder/expected" "$folder/compared" >"$folder/diff"; then
        echo "answers of $name that differ from Xen's (<), or from what differences.txt says of them:"
        cat "$folder/diff"
        status=1
    fi
done
exit $status
