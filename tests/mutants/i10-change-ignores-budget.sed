# I10: all words of a range are looked at and changed in one call.
# File: hv/mm/change.c
# Test: bounds.a_call_does_one_step/protect
s/if (!mm_spend(ctx, STEP_WORDS)) {/if (!mm_spend(ctx, STEP_WORDS) \&\& ctx == NULL) {/
