# I5: a fork flushes the parent before it takes the write bits (M-flushfirst).
# File: hv/mm/*.c
# Test: flush.operations_flush_before_they_return
/^static void fork_end(/,/^}/{
s/^    protect_root(ctx, parent, batch);$/    flush_need(batch);/
s/^    flush_finish(ctx, batch);$/&\
    protect_root(ctx, parent, batch);/
}
