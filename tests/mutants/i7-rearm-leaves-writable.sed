# I7: arming does not take the write bits.
# File: hv/mm/*.c
# Test: notify.rearm
/^static enum cleave_status arm_range(/,/^}/s/^    space_strip_write(.*$/    (void)batch;/
