# I8: a change to private memory is given up of which a part is done.
# File: hv/mm/space.c
# Test: bounds.shared_pages_become_private_in_order
s/ && space->op_phase != PHASE_CONVERT;/;/
