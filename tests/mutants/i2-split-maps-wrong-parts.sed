# I2: a split maps neighbouring parts the wrong way round.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^static enum cleave_status split_into(/,/^}/s/pte_split_leaf(leaf, level, i)/pte_split_leaf(leaf, level, i ^ 1)/
