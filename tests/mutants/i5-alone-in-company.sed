# I5: a CPU takes itself for alone while another one is in the guest.
# File: hv/mm/*.c
# Test: host_core.a_copy_is_seen_by_all_at_once
/^static bool runs_elsewhere(/,/^}/s/cpu != ctx->cpu && /cpu != ctx->cpu \&\& cpu > MM_MAX_CPUS \&\& /
