# I3: a leaf of foreign maps stays when nothing of it is used.
# File: hv/mm/*.c
# Test: foreign_many.one_owner_in_any_order radix.is_a_sorted_list
/^void radix_trim(/,/^}/s/leaf->used > 0/leaf->used + 1 > 0/
