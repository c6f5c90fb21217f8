# I8: a 1 GiB run of which a pool keeps a part loses its mark, and its blocks have none.
# File: hv/mm/pool_resize.c
# Test: pool_resize.every_size_to_every_other pool_resize.a_frame_in_use_is_never_nobodys
/^static void disown_giga(/,/^}/s/mark_block(pool, giga + i \* level_pages(1));/(void)i;/
