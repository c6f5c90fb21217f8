# I8: blocks of a 1 GiB run that is wholly free keep marks of their own, and are given up with them.
# File: hv/mm/runs.c
# Test: pool_resize.an_edge_in_use_becomes_a_giant pool_resize.random_beside_a_list
/^void runs_push_free_giga(/,/^}/s/blocks\[i\].pool = 0;/(void)blocks;/
