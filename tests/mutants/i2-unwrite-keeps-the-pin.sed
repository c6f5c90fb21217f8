# I2: a foreign map whose write bit was taken back for a snapshot stays a pin, which the snapshot copies.
# File: hv/mm/foreign.c
# Test: foreign.a_written_map_can_be_taken_back
s/if (forget) {/if (forget \&\& r == last) {/
