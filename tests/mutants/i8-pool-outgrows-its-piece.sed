# I8: a pool grows past the untyped memory that it is made of.
# File: hv/mm/untyped.c
# Test: untyped_piece.pool_grows_and_shrinks_in_its_piece cap_model.random_beside_a_naive_tree
/^static enum cleave_status begin_resize(/,/^}/s/resize->frames > most ||/resize->frames > most + level_pages(1) ||/
