# I1: write bits are given back to a table's leaves without a look at who split their block.
# File: hv/mm/frame.c
# Test: frame.split_is_counted_once_for_all_parts
/^void frame_exclusive_run(/,/^}/s/d\[i\].count + split/d[i].count + 0 * split/
