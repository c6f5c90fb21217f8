# I10: all pages of a range become private in one call.
# File: hv/mm/convert.c
# Test: bounds.shared_pages_become_private_in_order
s/if (!mm_spend(ctx, part.end.v - part.start.v)) {/if (ctx == NULL) {/
