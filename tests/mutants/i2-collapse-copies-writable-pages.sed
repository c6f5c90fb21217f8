# I2: collapse copies pages that are still being written.
# File: hv/mm/*.c
# Test: mutant_gap.collapse_protects_before_it_copies
/^static enum cleave_status prepare_missing(/,/^}/s/if (pte_writable(e)) {/if (pte_writable(e) \&\& c->level > 1) {/
