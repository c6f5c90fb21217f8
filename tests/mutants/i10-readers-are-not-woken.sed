# I10: an event is there, and whoever waits for one is not told.
# File: hv/mm/channel.c
# Test: notify.readers_wait_for_an_event
/kind = WAIT_EVENT/d
