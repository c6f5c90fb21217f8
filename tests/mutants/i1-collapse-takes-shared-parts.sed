# I1: collapse takes parts that others hold.
# File: hv/mm/*.c
# Test: mutant_gap.collapse_takes_no_shared_parts
/^static enum cleave_status replace_table(/,/^}/s/if (!frame_is_exclusive(c->ctx, part, c->level - 1, 0)) {/if (part.v == 0) {/
