# I10: a continued populate looks again at what it has filled.
# File: hv/mm/map.c
# Test: bounds.populate_is_linear
/^static enum cleave_status populate_begin(/,/^}/s/if (!same) {/if (space != NULL) {/
