# I8: foreign maps draw on what is reserved for the guest.
# File: hv/mm/*.c
# Test: foreign_many.reservations_stay
/^static enum cleave_status make_node(/,/^}/s/struct payer plain = {.*};/struct payer plain = *payer;/
