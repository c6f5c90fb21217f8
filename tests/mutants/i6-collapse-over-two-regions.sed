# I6: collapse makes one leaf over several regions.
# File: hv/mm/*.c
# Test: collapse.collapse_is_refused
/^static enum cleave_status check_block(/,/^}/s/extent.start.v > block.start.v || extent.end.v < block.end.v || //
