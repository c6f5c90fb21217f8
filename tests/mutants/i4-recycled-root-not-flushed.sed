# I4: a new space begins with the generation that every CPU has seen.
# File: hv/mm/*.c
# Test: flush.recycled_roots_carry_nothing_over
s/^    space->generation = 1;$/    space->generation = 0;/
