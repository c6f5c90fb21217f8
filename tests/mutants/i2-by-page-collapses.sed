# I2: a space whose pages are to get other frames only by writes is collapsed all the same.
# File: hv/mm/collapse.c
# Test: diff.pages_that_were_written
s/ || c->space->by_page//
s/ || space->by_page//
