# I7: collapse makes one writable leaf of a block with armed pages.
# File: hv/mm/*.c
# Test: collapse.collapse_is_refused
/^static enum cleave_status check_block(/,/^}/{
s/extent.start.v > block.start.v || extent.end.v < block.end.v || //
s/c->region.notify || //
}
