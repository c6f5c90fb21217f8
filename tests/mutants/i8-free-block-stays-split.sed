# I8: a block whose last split part was dropped is still counted as split when it is free.
# File: hv/mm/frame.c
# Test: frame.split_is_counted_once_for_all_parts
/^static void parts_gone(/,/^}/s/spread_split(ctx, run, frame_of(first, order));/(void)first, (void)ctx;/
