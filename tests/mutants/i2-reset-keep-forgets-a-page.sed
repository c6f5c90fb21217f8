# I2: reset with keep does not copy a page back.
# File: hv/mm/*.c
# Test: reset.reset_keeps_hot_pages/2m
/^static bool keep_leaf(/,/^}/s/^        port_copy_pages(/        (void)!(/
