# I4: channel_cancel_wait() returns at once for a writer that no longer waits: whoever woke it may still
# be about to use it, and its vcpu is freed.
# File: hv/mm/channel.c
# Test: notify.cancelled_while_it_is_woken
/^    \/\* Also when it does not wait any more/i\
    if (wait->kind == WAIT_NONE) {\
        return;\
    }
