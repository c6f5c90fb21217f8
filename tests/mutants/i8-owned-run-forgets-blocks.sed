# I8: blocks in use of a 1 GiB run lose their marks before the run has its own.
# File: hv/mm/pool_resize.c
# Test: pool_resize.a_frame_in_use_is_never_nobodys
/^static void own_giga(/,/^}/s/__atomic_store_n(&run->pool, pool->start.v, __ATOMIC_RELEASE);/port_point(ctx, POINT_OWNER, giga, 1);\n    &/
/^static void own_giga(/,/^}/s/run->state = RUN_BROKEN;/&\n    for (uint64_t i = 0; i < PARTS; i++) {\n        run_of(pfn((uint32_t)(giga + i * level_pages(1))), 1)->pool = 0;\n    }/
