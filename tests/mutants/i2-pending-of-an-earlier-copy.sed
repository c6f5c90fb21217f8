# I2: a pending leaf is taken for the fault's own though its frame came back with a later copy.
# File: hv/mm/*.c
# Test: review.a_frame_that_comes_back_is_not_written_before_the_flush
/^enum need fault_confirm(/,/^}/s/space_turns(f->space) != f->pending_turns/false/
