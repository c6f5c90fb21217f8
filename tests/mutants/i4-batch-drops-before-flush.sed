# I4: a batch drops its references, then flushes.
# File: hv/mm/*.c
# Test: flush.x16_flush_then_drop_then_free
/^void flush_finish(/,/^}/c\
void flush_finish(struct mm_ctx *ctx, struct flush_batch *batch)\
{\
    for (unsigned i = 0; i < batch->count; i++) {\
        pfn_t f = batch->drop[i].frame;\
        if (batch->drop[i].table) {\
            table_put(ctx, f);\
        } else {\
            port_point(ctx, POINT_DROP, f.v,\
                       batch->drop[i].order | (uint64_t)batch->drop[i].parts << 8);\
            frame_put_run(ctx, f, batch->drop[i].order, batch->drop[i].parts);\
        }\
    }\
    if (batch->needed) {\
        flush_all(ctx, batch->space);\
    }\
    batch->count = 0;\
    batch->needed = false;\
}
