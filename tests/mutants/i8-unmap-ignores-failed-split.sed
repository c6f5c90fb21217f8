# I8: unmap goes on when the leaf at its edge could not be split.
# File: hv/mm/*.c
# Test: map.x6_unmapping_a_part_with_every_allocation_failing/2m
/^enum cleave_status space_cut_both(/,/^}/s/return status == CLEAVE_OK ? space_cut(ctx, space, range.end, batch) : status;/return status == CLEAVE_OK \&\& space_cut(ctx, space, range.end, batch) == CLEAVE_OK ? status : CLEAVE_OK;/
