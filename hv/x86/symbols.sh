#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# symbols.sh NM: prints as assembly the functions that symbols.c looks up. NM is a file with what
# `nm -n` says of the image, or is empty for the first link.
set -eu
awk '
    function hex(text,    i, value) {
        value = 0
        for (i = 9; i <= 16; i++) { # what is above is the same in all of them
            value = value * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
        }
        return value
    }
    $3 == "image_start" { start = hex($1); at_start = 1 }
    at_start && ($2 == "t" || $2 == "T") && $3 !~ /^\./ && $1 != last {
        name[count] = $3
        offset[count++] = hex($1) - start
        last = $1
    }
    END {
        print "    .section .symbols, \"a\""
        print "    .globl symbol_table, symbol_count, symbol_names"
        print "    .balign 8"
        print "symbol_table:"
        for (i = 0; i < count; i++) {
            printf "    .long %d, %d\n", offset[i], at
            at += length(name[i]) + 1
        }
        print "symbol_count:"
        printf "    .long %d\n", count
        print "symbol_names:"
        for (i = 0; i < count; i++) {
            printf "    .asciz \"%s\"\n", name[i]
        }
        print "    .section .note.GNU-stack, \"\", @progbits"
    }' "$1"
