# I5: taking the write bit of what had none does not flush what an earlier holder of it may have cached.
# File: hv/mm/*.c
# Test: rows_cow.t_d2_what_is_read_only_already_is_flushed/protect
/^void space_strip(/,/^}/s/^    flush_need(batch);$/    (void)batch;/
