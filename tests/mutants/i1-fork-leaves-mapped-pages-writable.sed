# I1: a fork leaves the write bits of leaves that others map.
# File: hv/mm/*.c
# Test: foreign.shares_with_the_last_holder_of_a_table foreign_many.owner_forks
/^static void strip_leaf(/,/^}/s/i < count;/i + 1 < count;/
