# I2: collapse moves pinned pages.
# File: hv/mm/*.c
# Test: mutant_gap.collapse_moves_no_pinned_page
/^static enum cleave_status check_block(/,/^}/s/attachment_next(c->space, NULL, block) != NULL/attachment_next(c->space, NULL, block) == (void *)c/
