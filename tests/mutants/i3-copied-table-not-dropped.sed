# I3: the reference on a table that was copied is never dropped.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
s/^    flush_drop_table(batch, shared);$/    flush_need(batch);/
