# I6: a first touch looks at the region of the order below.
# File: hv/mm/*.c
# Test: notify.first_touch_is_told
/^[a-z].*need fault_first_touch(/,/^}/s/in_extent(f, first, order)/in_extent(f, f->at, order > 0 ? order - 1 : 0)/
