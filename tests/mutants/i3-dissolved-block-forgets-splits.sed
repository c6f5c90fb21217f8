# I3: a block that dissolves leaves what was split off of it in the run, where no part sees it.
# File: hv/mm/frame.c
# Test: frame.dissolving_strands_nothing
/^static void end_block(/,/^}/s/spread_split(ctx, run_of(block, 1), frame_of(block, 0));//
