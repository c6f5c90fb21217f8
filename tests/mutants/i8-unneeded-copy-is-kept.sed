# I8: the copy that was had with a split is not given back when the page turned out to be shared no
# more.
# File: hv/mm/*.c
# Test: split_copy.copy_that_is_not_needed_goes_back
/^static void drop_frames(/,/^}/s/frame_put(f->ctx, f->copy, 0);//
