# I4: an identifier that is taken back from another owner is used without a flush.
# File: hv/mm/flush.c
# Test: flush.asids_are_recycled_with_a_flush
s/cpu->of\[id\].stale = 1; \/\* what its last owner left.*/cpu->of[id].stale = cpu->of[id].stale;/
