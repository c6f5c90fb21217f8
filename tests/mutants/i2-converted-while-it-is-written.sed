# I2: shared memory is copied while its own vcpus may write it.
# File: hv/mm/convert.c
# Test: review.a_write_while_memory_is_unshared_is_kept
/space_strip(ctx, space, part, RIGHT_WRITE, &batch);/d
