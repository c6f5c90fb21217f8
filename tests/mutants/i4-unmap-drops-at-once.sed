# I4: unmap drops a frame as soon as its entry is empty.
# File: hv/mm/*.c
# Test: host_core.unmap_under_a_running_guest
/^static void clear_table(/,/^}/s/flush_drop_frames(batch, pte_pfn(e), level, 1);/frame_put(ctx, pte_pfn(e), level);\
            flush_need(batch);/
