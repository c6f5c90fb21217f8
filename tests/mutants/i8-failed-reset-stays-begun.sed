# I8: a reset that fails before it has changed anything leaves its operation to be continued.
# File: hv/mm/reset.c
# Test: reset.reset_that_fails_leaves_no_operation
/^static enum cleave_status give_up_regions(/,/^}/s/space->op = OP_NONE;/;/
