# I7: arming does not flush.
# File: hv/mm/*.c
# Test: notify.rearm
/^static enum cleave_status arm_range(/,/^}/s/^    flush_finish(ctx, &batch);$/    (void)batch;/
