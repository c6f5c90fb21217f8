# I8: what a shared region had been given before it failed is not waited for.
# File: hv/mm/space.c
# Test: bounds.sharing_more_than_there_is
/^enum cleave_status space_undo_on(/,/^}/s/if (!table_reap(/if (ctx == NULL \&\& !table_reap(/
