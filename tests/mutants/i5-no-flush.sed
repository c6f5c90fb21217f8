# I5: no flush at all.
# File: hv/mm/*.c
# Test: flush.operations_flush_before_they_return
/^void flush_finish(/,/^}/s/^        flush_all(ctx, batch->space);$/        (void)flush_all;/
