# I1: a split lowers the head before it raises the parts.
# File: hv/mm/*.c
# Test: race.x15_write_in_the_middle_of_a_split
/^enum cleave_status frame_split(/,/^}/c\
enum cleave_status frame_split(struct mm_ctx *ctx, pfn_t f, unsigned order)\
{\
    spin_lock(ctx, &run_of(f, 2)->lock, RANK_GIGA);\
    bool others = frame_of(f, order)->count > 1;\
    frame_of(f, order)->count -= others;\
    spin_unlock(ctx, &run_of(f, 2)->lock, RANK_GIGA);\
    port_point(ctx, POINT_SPLIT_RAISED, f.v, order);\
    enum cleave_status status = frame_get_run(ctx, f, order - 1, TABLE_ENTRIES, 1);\
    if (status == CLEAVE_OK && !others) {\
        frame_put(ctx, f, order);\
    }\
    return status;\
}
