# I10: dropping a region tree is not preempted.
# File: hv/mm/*.c
# Test: region.drop_stops_and_goes_on
/^static bool drop_[a-z]*(/,/^}/s/if (!mm_spend(ctx, 1)) {/if (!mm_spend(ctx, 1) \&\& ctx == NULL) {/
/^bool region_drop(/,/^}/s/if (!mm_spend(ctx, 1)) {/if (!mm_spend(ctx, 1) \&\& ctx == NULL) {/
