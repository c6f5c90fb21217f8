# I1: every pin of a space counts for every frame of it.
# File: hv/mm/*.c
# Test: pin.cow_cases/pages
/^uint64_t attachments_at(/,/^}/s/found += on_chain(&all\[i\], at, f);/found += 1;/
