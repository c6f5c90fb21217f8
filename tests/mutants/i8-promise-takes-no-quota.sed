# I8: what is reserved is not part of the quota: another charge of the account takes its room.
# File: hv/mm/account.h
# Test: bounds.others_of_the_domain_leave_room_for_the_copies pool.what_is_reserved_is_part_of_the_quota
s/taken = account->charged + account->promised;/taken = account->charged;/
