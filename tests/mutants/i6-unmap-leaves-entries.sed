# I6: unmap takes the region and leaves the entries.
# File: hv/mm/*.c
# Test: map.unmap/2m
/^static void unmap_entries(/,/^}/s/^ *space_clear(.*$/    (void)ctx, (void)batch;/
