# I10: a copied page never gets its write bit.
# File: hv/mm/*.c
# Test: fault.write_after_fork/4k
/^static void give_pending(/,/^}/s/for (unsigned i = 0; i < count && may; i++)/for (unsigned i = 0; i < count \&\& may \&\& count > PREPARED_MAX; i++)/
