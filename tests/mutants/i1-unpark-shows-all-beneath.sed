# I1: a parked table is made present with what this space may not read beneath it.
# File: hv/mm/*.c
# Test: rights.one_page_alone/4k rights.one_page_alone/split-2m
/^static void walk_give(/,/^}/s/^        table_restrict(ctx, walk->space, table, base, RIGHT_READ);$//
