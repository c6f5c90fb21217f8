# I3: the reference on a page that was copied is never dropped.
# File: hv/mm/*.c
# Test: fault.write_after_fork/4k
/^static bool commit_one(/,/^}/s/^    flush_drop_frames(.*$/    flush_need(\&f->batch);/
