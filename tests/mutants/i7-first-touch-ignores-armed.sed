# I7: a read that fills a hole maps an armed page writable.
# File: hv/mm/*.c
# Test: mutant_gap.an_armed_hole_is_read_first
/^static unsigned leaf_rights(/,/^}/s/f->region.armed || //
