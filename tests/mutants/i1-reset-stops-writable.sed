# I1: what a stopped reset has not reverted yet stays writable where the base's regions are armed.
# File: hv/mm/reset.c
# Test: bounds.reset_stops_between_blocks_and_words
s/^        table_restrict(ctx, space, space->root, gfn(0), RIGHT_WRITE);//
