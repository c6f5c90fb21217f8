# I9: a child keeps what is in a wipe range.
# File: hv/mm/*.c
# Test: fork.policy_at_fork
/^static enum cleave_status apply_policies(/,/^}/s/^            space_clear(ctx, child, range, &batch);$/            if (!wipe) {\
                space_clear(ctx, child, range, \&batch);\
            }/
