# I2: a copy is put in place although the entry has changed meanwhile.
# File: hv/mm/*.c
# Test: fault_race.lost_race_drops_the_copy
/^static bool commit_one(/,/^}/s/if (((now ^ item->from) & ~flags) != 0) {/if (((now ^ item->from) \& ~flags) != 0 \&\& item->from == 0) {/
