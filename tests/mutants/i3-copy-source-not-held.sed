# I3: the source of a copy is not held while no lock is.
# File: hv/mm/*.c
# Test: mutant_gap.the_source_of_a_copy_does_not_come_back
/^enum cleave_status prepared_add(/,/^}/s/from != 0 ? frame_get(ctx, pte_pfn(from), level) : CLEAVE_OK/CLEAVE_OK/
/^void prepared_drop(/,/^}/s/if (item->from != 0) {/if (item->to.v == UINT32_MAX) {/
