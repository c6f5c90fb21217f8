# I5: only the calling CPU flushes.
# File: hv/mm/*.c
# Test: flush.operations_flush_before_they_return
/^static void flush_all(/,/^}/s/if (flush_running(cpu) != space) {/if (flush_running(cpu) != space || cpu != ctx->cpu) {/
