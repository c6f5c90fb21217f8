# I3: copying a table does not count what its parked entries refer to.
# File: hv/mm/*.c
# Test: rights.forks_inherit_it/4k rights.forks_inherit_it/1g
/^static enum cleave_status count_entries(/,/^}/s/pte_holds_table(e, level)/pte_is_table(e, level)/
/^static enum cleave_status count_entries(/,/^}/s/!pte_holds_leaf(e, level)/!pte_is_leaf(e, level)/
