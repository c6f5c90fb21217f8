# I7: the subscriber is told when the page is already writable.
# File: hv/mm/*.c
# Test: notify.allow
s/return f->region.armed && f->access == ACCESS_WRITE ? NEED_NOTIFY : NEED_NOTHING;/return NEED_NOTHING;/
/^static unsigned leaf_rights(/,/^}/s/f->region.armed || //
/^static enum cleave_status fault_rounds(/,/^}/s/^    drop_frames(f);$/&\
    if (f->region.armed \&\& f->access == ACCESS_WRITE \&\& status == CLEAVE_OK) {\
        (void)!channel_notify(f->ctx, f->space, f->at, \&f->region, NULL);\
    }/
