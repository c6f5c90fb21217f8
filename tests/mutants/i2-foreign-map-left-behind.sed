# I2: a page turns writable before the foreign maps of it follow.
# File: hv/mm/*.c
# Test: foreign.follows_the_owner
s/f->space->foreign_count != 0; i++) {/f->space->foreign_count > UINT16_MAX; i++) {/
