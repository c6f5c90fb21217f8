# I10: collapse is not preempted.
# File: hv/mm/*.c
# Test: preempt.stopped_at_every_point_is_the_same_as_in_one_go/collapse
s/c.prepared.count == 0 && !mm_spend(ctx, PREPARED_MAX)/!mm_spend(ctx, PREPARED_MAX) \&\& ctx == NULL/
