# I5: a CPU that comes back does not flush.
# File: hv/mm/*.c
# Test: host_core.flushes_lazily
/^enum cleave_status flush_enter(/,/^}/s/^    flush_self(ctx, space);$/    (void)flush_self;/
