# I10: a shared region is filled in one call, whatever the budget.
# File: hv/mm/stage.c
# Test: bounds.a_call_does_one_step/share
/^enum cleave_status stage_run(/,/^}/s/^    enum cleave_status status;/&\n    ctx->budget = UINT64_MAX;/
