# I1: a split lowers the head before it raises the parts.
# File: hv/mm/*.c
# Test: race.x15_write_in_the_middle_of_a_split
/^enum cleave_status frame_split(/,/^}/c\
enum cleave_status frame_split(struct mm_ctx *ctx, pfn_t f, unsigned order)\
{\
    struct run *run = run_of(f, order);\
    spin_lock(ctx, &run_of(f, 2)->lock, RANK_GIGA);\
    bool others = frame_count(f, order) > 1;\
    frame_of(f, order)->count -= others;\
    spin_unlock(ctx, &run_of(f, 2)->lock, RANK_GIGA);\
    port_point(ctx, POINT_SPLIT_RAISED, f.v, order);\
    spin_lock(ctx, &run->lock, count_rank(order - 1));\
    bool room = run->split < FRAME_COUNT_MAX || renew_split(ctx, run, frame_of(f, order - 1));\
    run->split += room;\
    __atomic_store_n(&run->used, TABLE_ENTRIES, __ATOMIC_RELEASE);\
    spin_unlock(ctx, &run->lock, count_rank(order - 1));\
    if (!others) {\
        frame_put(ctx, f, order);\
    }\
    return CLEAVE_OK;\
}
