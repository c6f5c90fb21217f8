# I10: destroy and reset free all their tables in one call.
# File: hv/mm/*.c
# Test: mutant_gap.destroy_frees_one_table_a_call
/^bool table_reap(/,/^}/s/if (!mm_spend(ctx, TABLE_ENTRIES)) {/if (!mm_spend(ctx, TABLE_ENTRIES) \&\& pool == NULL) {/
