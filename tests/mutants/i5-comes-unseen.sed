# I5: who enters a guest between the look and the new generation keeps its translations.
# File: hv/mm/*.c
# Test: flush.alone_is_seen_by_who_comes_meanwhile
/^bool flush_alone(/,/^}/s/if (runs_elsewhere(ctx, space)) { .*/if (false) {/
