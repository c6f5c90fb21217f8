# I2: collapse puts its copies in place although the entry has changed.
# File: hv/mm/*.c
# Test: collapse.collapse_races_with_a_writer_at_every_point
/^static enum cleave_status install_missing(/,/^}/s/if (((now ^ item->from) & ~flags) != 0 || /if ((void)flags, /
