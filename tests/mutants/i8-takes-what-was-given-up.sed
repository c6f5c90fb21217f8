# I8: a frame that the pool has given up meanwhile is taken, out of another pool's map.
# File: hv/mm/pool.c
# Test: pool_resize.a_frame_given_up_is_not_taken
/^enum cleave_status pool_alloc_at(/,/^}/s/bool ours = .*/bool ours = true;/
