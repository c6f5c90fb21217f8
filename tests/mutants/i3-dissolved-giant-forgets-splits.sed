# I3: the same for the blocks of a 1 GiB block.
# File: hv/mm/frame.c
# Test: frame.split_in_a_split_giant frame.dissolving_strands_nothing
/^static void put_giga(/,/^}/s/spread_split(ctx, giga, frame_of(f, 1));//
