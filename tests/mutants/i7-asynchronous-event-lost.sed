# I7: an asynchronous writer goes on and its event is not sent.
# File: hv/mm/*.c
# Test: notify.asynchronous
/^static enum cleave_status notify_and_go(/,/^}/s/if (status == CLEAVE_OK && !sent) {/if (status == CLEAVE_OK \&\& !sent \&\& channel->dead) {/
