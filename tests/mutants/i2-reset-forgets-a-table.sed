# I2: reset passes over one entry of the root.
# File: hv/mm/*.c
# Test: reset.reset_drops_what_was_written/2m
/^static void revert_root(/,/^}/s/if (at.v + level_pages(ROOT_LEVEL) <= r->space->op_at.v || /&i == 0 || /
