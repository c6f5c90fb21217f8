# I8: a pool beside a piece of untyped memory grows out of that.
# File: hv/mm/untyped.c
# Test: untyped_piece.pool_resize_refuses
/^static bool is_last_child(/,/^}/s/slot->depth == source->depth + 1 &&/true \&\&/
