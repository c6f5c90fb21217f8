# I8: a space that could not be made leaves its account behind.
# File: hv/mm/space.c
# Test: cap_pool.revoke_of_a_pool_whose_spaces_run.alloc
/^enum cleave_status space_create(/,/^}/s/account_release(ctx, pool, payer.account);/(void)0;/
