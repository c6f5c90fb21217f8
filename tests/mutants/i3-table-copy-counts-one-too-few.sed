# I3: copying a table leaves its first entry uncounted.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^enum cleave_status table_copy(/,/^}/s/for (unsigned i = table_next_used(to, 0), n;/for (unsigned i = table_next_used(to, 1), n;/
