# I8: a table that was never put in place is freed, and the run set aside for it stays so.
# File: hv/mm/*.c
# Test: split_copy.split_that_fails_gives_all_back
/^static void free_to(/,/^}/s/if (kind == FRAME_TABLE \&\& /if (kind == FRAME_KINDS \&\& /
