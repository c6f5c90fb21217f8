# I5: protect returns without its flush.
# File: hv/mm/*.c
# Test: flush.operations_flush_before_they_return
/^enum cleave_status space_protect(/,/^}/s/^    flush_finish(ctx, &batch);$/    (void)batch;/
