# I4: a flush of a root reaches only the first of the identifiers that were used with it.
# File: hv/mm/flush.c
# Test: flush.asids_of_a_root_are_forgotten_together
/^void asid_forget/,/^}/ s/\.stale = 1;/.stale = 1; break;/
