# I9: populate shows the frame's old bytes.
# File: hv/mm/*.c
# Test: map.map_leaves_of_each_order
/^enum cleave_status space_fresh_leaf(/,/^}/s/^ *port_zero_pages(/        (void)!(/
