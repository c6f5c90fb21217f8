# I4: a table that was copied is dropped before the flush.
# File: hv/mm/*.c
# Test: fork.t3_unshared_tables_are_dropped_after_the_flush
s/^    flush_drop_table(batch, shared);$/    table_put(ctx, shared);\
    flush_need(batch);/
