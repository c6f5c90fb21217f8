# I1: the child's root has the parent's write bits.
# File: hv/mm/*.c
# Test: fork_tree.fork_isolates/2m
s/to\[i\] = pte_without_write(e);/to[i] = e;/
