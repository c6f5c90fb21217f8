# I5: a flush does not raise the generation.
# File: hv/mm/*.c
# Test: host_core.flushes_lazily
s/__atomic_add_fetch(&space->generation, 1,/__atomic_add_fetch(\&space->generation, 0,/
