# I8: who waits for memory sleeps on when its pool grows.
# File: hv/mm/pool_resize.c
# Test: pool_resize.growth_wakes_who_waits
/^static void grow(/,/^}/s/pool_wake(ctx, pool);/(void)ctx;/
