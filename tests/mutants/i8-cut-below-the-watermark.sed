# I8: a piece is cut where something was made of it.
# File: hv/mm/untyped.c
# Test: untyped_piece.what_was_handed_out_stays_with_its_source
/^static enum cleave_status cut(/,/^}/s/least = least == 0 ? 1 : least;/least = 1;/
