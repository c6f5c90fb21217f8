# I3: a split does not say that all parts of the block are in use.
# File: hv/mm/frame.c
# Test: frame.split_is_counted_once_for_all_parts
/^enum cleave_status frame_split(/,/^}/s/__atomic_store_n(&run->used, TABLE_ENTRIES, __ATOMIC_RELEASE);//
