# I7: rights are taken from a table while another vcpu splits a leaf in it, with the rights it had.
# File: hv/mm/*.c
# Test: review.a_split_keeps_no_right_that_is_taken
/^void table_restrict(/,/^}/s/table_\(un\)\?lock(ctx, table);.*/(void)0;/
