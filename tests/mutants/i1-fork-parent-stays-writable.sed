# I1: the parent's root keeps its write bits at fork.
# File: hv/mm/*.c
# Test: fork_tree.fork_isolates/2m
s/^    protect_root(ctx, parent, batch);$/    (void)protect_root;/
