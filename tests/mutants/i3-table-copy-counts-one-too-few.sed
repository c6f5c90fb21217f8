# I3: copying a table leaves its first entry uncounted.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^enum cleave_status table_copy(/,/^}/s/for (unsigned i = 0, n; i < TABLE_ENTRIES; i += n)/for (unsigned i = 1, n; i < TABLE_ENTRIES; i += n)/
