# I8: a part of a block that is still mapped whole is freed with its own last reference.
# File: hv/mm/*.c
# Test: frame.split_hands_references_over fault.last_holder_reuses
/^static bool in_parts(/,/^}/s/state == RUN_BROKEN || /state == RUN_BROKEN || state == RUN_WHOLE || /
