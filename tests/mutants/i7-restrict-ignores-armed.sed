# I7: a table gets its write bit back with armed pages beneath it writable.
# File: hv/mm/*.c
# Test: fault.write_bits_are_not_given_to_what_must_not_have_them
/^void table_restrict(/,/^}/s/if (pte_read(&slots\[i\]) != 0 \&\&/if (right != RIGHT_WRITE \&\& pte_read(\&slots[i]) != 0 \&\&/
