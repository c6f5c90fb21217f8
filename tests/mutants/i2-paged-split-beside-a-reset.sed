# I2: a base's tables are replaced while a fork that goes back to it reads them.
# File: hv/mm/*.c
# Test: review.a_base_stays_while_forks_go_back_to_it
/^enum cleave_status paged_split(/,/^}/s/write_\(un\)\?lock(ctx, &space->lock/read_\1lock(ctx, \&space->lock/
