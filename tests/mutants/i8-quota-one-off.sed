# I8: an account may be charged one frame more than its limit.
# File: hv/mm/*.c
# Test: pool.x19_quotas_near_the_limits_of_their_type
/^static enum cleave_status may_charge(/,/^}/s/&& pages > room) {/\&\& pages > room + 1) {/
