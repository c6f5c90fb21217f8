# I1: a walk that makes tables exclusive passes over a shared one.
# File: hv/mm/walk.c
# Test: move.shared_memory_is_copied_first/block move.shared_memory_is_copied_first/pages rights.forks_inherit_it/4k fork_tree.fork_isolates_after_protect/2m
/^static inline bool walk_ready(/,/^}/s/ \&\& node_count(pte_pfn(e)) == 1//
