# I7: write bits are given back to a whole table without a look at its regions.
# File: hv/mm/*.c
# Test: fault.write_bits_are_not_given_to_what_must_not_have_them
/^static bool may_write(/,/^}/s/!(restricted && /!(restricted \&\& level > ROOT_LEVEL \&\& /
