# I4: channel_destroy() unlinks the channel before it wakes its writers: one that is cancelled meanwhile
# is not found there.
# File: hv/mm/channel.c
# Test: notify.cancelled_while_it_is_woken
/^    \/\* Waking comes before it leaves/,/^    channel_unlock(ctx, channel);/{
H
d
}
/^    \*link = channel->next;$/,/^    spin_unlock/{
/spin_unlock/G
}
