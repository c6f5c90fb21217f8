# I8: an allocation takes frames that others have reserved.
# File: hv/mm/*.c
# Test: pool.reservations_are_refused_and_never_overcommitted
/^static enum cleave_status may_charge(/,/^}/s/pages > pool->free - pool->reserved) {/pages > pool->free) {/
