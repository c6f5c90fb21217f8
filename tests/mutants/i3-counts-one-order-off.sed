# I3: a copied table takes its references one order too low.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^static enum cleave_status count_entries(/,/^}/s/return frame_get_mapped(ctx, pte_pfn(e), level, \*n);/return frame_get_run(ctx, pte_pfn(e), level > 0 ? level - 1 : 0, *n);/
