# I8: a reservation counts pages and forgets the tables.
# File: hv/mm/*.c
# Test: memory.reservation_is_refused_with_one_frame_less_and_suffices/1g
/^static uint64_t extent_tables(/,/^}/s/for (unsigned level = 1;/for (unsigned level = ROOT_LEVEL + 1;/
