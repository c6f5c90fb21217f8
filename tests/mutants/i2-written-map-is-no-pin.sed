# I2: a fork does not find the maps that were written through.
# File: hv/mm/*.c
# Test: foreign_many.owner_forks
/^void foreign_record_set(/,/^}/s/if (was != is) {/if (was \&\& !is) {/
