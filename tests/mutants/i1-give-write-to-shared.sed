# I1: write bits are given back to leaves that others hold, too.
# File: hv/mm/*.c
# Test: fault.c2_dirty_bits_do_not_make_writable/2m
/^unsigned table_give_write(/,/^}/s/bool alone = .*;$/bool alone = true;/
