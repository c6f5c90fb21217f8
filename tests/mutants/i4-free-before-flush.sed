# I4: unmap frees whole tables before the flush.
# File: hv/mm/*.c
# Test: flush.x16_flush_then_drop_then_free
/^static void clear_table(/,/^}/s/flush_drop_table(batch, pte_pfn(e));/flush_need(batch);\
            table_put(ctx, pte_pfn(e));\
            table_reap_some(ctx, pool_of(table), 1);/
