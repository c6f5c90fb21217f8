# I8: a reset that had let its lock go goes on although another has ended it, and more has begun.
# File: hv/mm/reset.c
# Test: foreign_race.a_reset_that_others_overtake
s/if (space->op != OP_RESET || space->op_at.v != FIRST_PHASE.v) {/if (ctx == NULL) {/
