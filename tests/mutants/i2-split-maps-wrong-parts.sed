# I2: a split maps neighbouring parts the wrong way round.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^enum cleave_status table_split_leaf(/,/^}/s/slots\[i\] = paged ? paged_part(leaf, i) : part;/slots[i ^ 1] = paged ? paged_part(leaf, i) : part;/
