# I8: the copy that is had with a split is taken from what others have reserved.
# File: hv/mm/*.c
# Test: split_copy.takes_what_it_may_and_no_more/reserved
/^static pfn_t take_first_copy(/,/^}/s/pool->free == pool->reserved/pool->free == 0/
