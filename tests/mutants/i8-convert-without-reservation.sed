# I8: pages become private before there is memory for all of them.
# File: hv/mm/convert.c
# Test: bounds.too_little_memory_leaves_shared_memory_shared
s/status = pool_reserve(ctx, &space->op_payer, change->state);/status = CLEAVE_OK;/
