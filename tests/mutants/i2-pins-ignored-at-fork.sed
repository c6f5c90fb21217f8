# I2: a fork shares pinned pages.
# File: hv/mm/*.c
# Test: pin.cow_cases
/^static enum cleave_status copy_pinned(/,/^}/s/i < a->pages &&/i < a->pages - a->pages \&\&/
