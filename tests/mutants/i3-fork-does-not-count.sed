# I3: the child's root holds no reference on its first subtree.
# File: hv/mm/*.c
# Test: fork_tree.fork_isolates/2m
/^static enum cleave_status share_root(/,/^}/s/status = node_get(ctx, pte_pfn(e));/status = i == 0 ? CLEAVE_OK : node_get(ctx, pte_pfn(e));/
