# I5: a CPU reads the generation before it publishes that it runs the space.
# File: hv/mm/*.c
# Test: mutant_gap.entering_while_another_flushes
/^enum cleave_status flush_enter(/,/^}/{
s/^    flush_self(ctx, space);$/    (void)space;/
s/^    __atomic_store_n(&cpu_state\[ctx->cpu\]\.running, space, __ATOMIC_SEQ_CST);$/    flush_self(ctx, space);\
    port_point(ctx, POINT_PREEMPT, space->id, 0);\
&/
}
