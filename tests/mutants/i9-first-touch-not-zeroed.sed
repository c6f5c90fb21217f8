# I9: a first touch shows the frame's old bytes.
# File: hv/mm/*.c
# Test: pool.x21_frames_that_change_hands_are_zeroed
/^void prepared_fill(/,/^}/s/^ *port_zero_pages(.*$/            (void)item->to;/
