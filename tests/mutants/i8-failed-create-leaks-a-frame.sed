# I8: a space whose second frame is refused leaves its first behind.
# File: hv/mm/space.c
# Test: cap_pool.revoke_of_a_pool_whose_spaces_run.alloc
/status = table_alloc(ctx, &payer, ROOT_LEVEL/,/^    if/s/free_node(ctx, object);/(void)object;/
