# I8: a page is copied that was not counted as shared, because a sum was read with no lock.
# File: hv/mm/convert.c
# Test: convert_race.pages_become_private_while_their_block_is_settled
/^static bool is_own(/,/^}/s/return frame_references(.*) == 1;/return frame_is_exclusive(ctx, pte_pfn(walk->entry), walk->level, 0);/
