# I5: taking READ away returns without a flush.
# File: hv/mm/*.c
# Test: rights.taken_and_given_back/4k
/^static void strip_rights(/,/^}/s/^            space_strip(ctx, space, range, right, batch);$/& batch->needed = false;/
