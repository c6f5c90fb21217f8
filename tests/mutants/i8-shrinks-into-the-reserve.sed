# I8: a pool gives up what is reserved.
# File: hv/mm/pool_resize.c
# Test: pool_resize.what_is_reserved_stays
/^static enum cleave_status shrink(/,/^}/s/pool->free - pool->reserved, lowest/pool->free, lowest/
