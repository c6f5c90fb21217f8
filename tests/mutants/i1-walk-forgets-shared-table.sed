# I1: a walk takes a table beneath a shared one as exclusive.
# File: hv/mm/*.c
# Test: map.lookup_and_usage/2m
s/walk->exclusive && node_count(table) == 1/node_count(table) == 1/
