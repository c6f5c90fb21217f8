# I1: the predicate takes a part's own count for all its references, whoever split the block.
# File: hv/mm/frame.c
# Test: fault.write_after_fork/2m frame.split_is_counted_once_for_all_parts
/^static uint64_t references(/,/^}/s/frame_count(f, order)/frame_of(f, order)->count/
