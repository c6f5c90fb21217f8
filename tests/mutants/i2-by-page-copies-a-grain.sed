# I2: where pages are to get other frames only by writes, a write copies its neighbours and whole blocks.
# File: hv/mm/break.c
# Test: diff.pages_that_were_written
s/ || f->space->by_page//
s/ && !f->space->by_page//
