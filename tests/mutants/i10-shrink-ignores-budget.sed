# I10: all set-aside runs end in one call, however many there are.
# File: hv/mm/pool_resize.c
# Test: pool_resize.set_aside_runs_end
/^static enum cleave_status try_block(/,/^}/s/if (!mm_spend(ctx, 1)) {/if (ctx == NULL) {/
