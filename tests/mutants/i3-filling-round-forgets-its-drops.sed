# I3: what a round dropped is forgotten when it ends with a page to be filled.
# File: hv/mm/*.c
# Test: fault.shared_tables_are_copied_once
/^static enum cleave_status fault_rounds(/,/^}/s/^        read_lock(/        flush_begin(\&f->batch, f->space);\n&/
