# I8: what is reserved is drawn only where the quota allows it at that moment.
# File: hv/mm/*.c
# Test: bounds.others_of_the_domain_leave_room_for_the_copies
/^static enum cleave_status may_charge(/,/^}/s/!(\*reserved && payer->promised) && pages > room/pages > room/
