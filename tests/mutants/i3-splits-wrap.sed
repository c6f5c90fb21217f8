# I3: the count of splits goes past its limit.
# File: hv/mm/frame.c
# Test: frame.splits_without_end
/^enum cleave_status frame_split(/,/^}/s/run->split == FRAME_COUNT_MAX \&\&/run->split > FRAME_COUNT_MAX \&\&/
