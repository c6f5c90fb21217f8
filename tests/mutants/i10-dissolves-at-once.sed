# I10: whoever drops the last reference to a 1 GiB block settles all of it.
# File: hv/mm/frame.c
# Test: bounds.a_block_dissolves_in_steps
s/dissolve_giga(ctx, f, SETTLE_AT_ONCE)/dissolve_giga(ctx, f, TABLE_ENTRIES)/
