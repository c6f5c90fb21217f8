# I2: a copied page is writable before the old one is flushed.
# File: hv/mm/*.c
# Test: host_core.a_copy_is_seen_by_all_at_once
/^static bool commit_one(/,/^}/s/leaf = copy ? pte_without_write(leaf) | PTE_PENDING : leaf;/(void)copy;/
