# I10: a copied page never gets its write bit.
# File: hv/mm/*.c
# Test: fault.write_after_fork/4k
/^[a-z].*need fault_confirm(/,/^}/s/for (unsigned i = 0; i < count && may; i++)/for (unsigned i = 0; i < count \&\& may \&\& count > PREPARED_MAX; i++)/
