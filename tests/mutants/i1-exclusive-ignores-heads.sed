# I1: the predicate does not look at the heads above.
# File: hv/mm/*.c
# Test: frame.exclusive_is_one_along_the_chain_and_nothing_beneath
/^static uint64_t references(/,/^}/s/references_above(f, order) + //
