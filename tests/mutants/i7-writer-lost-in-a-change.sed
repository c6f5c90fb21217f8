# I7: an asynchronous writer is told of in the regions that are about to be replaced.
# File: hv/mm/notify.c
# Test: bounds.writers_wait_for_a_change
s/!change_building(space) \&\& channel_below_limit/channel_below_limit/
