# I3: copying a table leaves its first entry uncounted.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^enum cleave_status table_copy(/,/^}/s/next_used(to, used.first, used.end), n;/next_used(to, used.first + 1, used.end), n;/
