# I2: a space's own pins make its pages shared.
# File: hv/mm/*.c
# Test: pin.pins_of_one_page_are_apart
/^uint64_t attachments_at(/,/^}/s/found += on_chain(&all\[i\], at, f);/(void)on_chain(\&all[i], at, f);/
