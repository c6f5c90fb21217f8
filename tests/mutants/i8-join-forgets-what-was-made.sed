# I8: a piece of which something was made is joined, and its memory handed out again.
# File: hv/mm/untyped.c
# Test: untyped_piece.join_refuses
/^static enum cleave_status join(/,/^}/s/if (cap_has_children(rest)) {/if (false) {/
