# I6: unmap takes the region and leaves the entries.
# File: hv/mm/*.c
# Test: map.unmap/2m
/^enum cleave_status space_unmap(/,/^}/s/^ *space_clear(.*$/        (void)space_clear;/
