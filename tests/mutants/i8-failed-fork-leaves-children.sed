# I8: a fork that fails leaves a child.
# File: hv/mm/*.c
# Test: fork.fork_is_all_or_nothing/2m
/^enum cleave_status space_fork(/,/^}/s/while (made > 0) {/while (made > 1) {/
