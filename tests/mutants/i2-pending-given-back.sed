# I2: a pending page gets its write bit with the rest of its table, before the flush.
# File: hv/mm/*.c
# Test: mutant_gap.a_copy_is_not_written_before_the_flush
/^static bool may_write(/,/^}/s/ | PTE_PENDING//
