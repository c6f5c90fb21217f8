# I2: a page that another vcpu has copied turns writable without a flush.
# File: hv/mm/*.c
# Test: mutant_gap.a_copy_is_not_written_before_the_flush
/^[a-z].*need fault_write_leaf(/,/^}/s/(walk->entry & PTE_PENDING)/(walk->entry \& PTE_PENDING \& PTE_SHARED)/
