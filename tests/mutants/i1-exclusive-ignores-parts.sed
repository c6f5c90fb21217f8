# I1: the predicate does not look beneath a block.
# File: hv/mm/*.c
# Test: frame.exclusive_is_one_along_the_chain_and_nothing_beneath
/^static bool nothing_beneath(/,/^}/s/if (order == 0)/if (order < LEAF_ORDERS)/
