# I1: the original keeps its write bits when a table is copied.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^static void share_entries(/,/^}/s/^ *pte_store_without_write(.*;$/            (void)ctx, (void)from;/
