# I2: a split maps neighbouring parts the wrong way round.
# File: hv/mm/*.c
# Test: fault.write_after_fork/2m
/^static enum cleave_status split_into(/,/^}/s/slots\[i\] = part;/slots[i ^ 1] = part;/
