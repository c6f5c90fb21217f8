# I1: a merge lowers the parts before it raises the head.
# File: hv/mm/*.c
# Test: race.x15_write_in_the_middle_of_a_merge
/^enum cleave_status frame_merge(/,/^}/c\
enum cleave_status frame_merge(struct mm_ctx *ctx, pfn_t f, unsigned order)\
{\
    chain_lock(ctx, f, order == 1 ? 0 : 2);\
    enum cleave_status status = pool_join(ctx, f, order);\
    chain_unlock(ctx, f, order == 1 ? 0 : 2);\
    if (status != CLEAVE_OK) {\
        return status;\
    }\
    frame_put_run(ctx, f, order - 1, TABLE_ENTRIES);\
    port_point(ctx, POINT_MERGE_RAISED, f.v, order);\
    chain_lock(ctx, f, order == 1 ? 0 : 2);\
    frame_of(f, order)->count = 1;\
    count_used(run_of(f, 2), order, 1);\
    chain_unlock(ctx, f, order == 1 ? 0 : 2);\
    return CLEAVE_OK;\
}
