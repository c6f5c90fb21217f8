# I8: reservations are granted from frames that others have reserved.
# File: hv/mm/*.c
# Test: pool.reservations_are_refused_and_never_overcommitted
/^enum cleave_status pool_reserve(/,/^}/s/frames > pool->free - pool->reserved) {/frames > pool->free) {/
