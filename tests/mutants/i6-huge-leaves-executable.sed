# I6: huge leaves are executable whatever the machine says.
# File: hv/mm/*.c
# Test: fault.first_touch_is_writable_in_one_step
/^static unsigned leaf_rights(/,/^}/s/level > 0 && !machine.huge_exec/level > ROOT_LEVEL/
