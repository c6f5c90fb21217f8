# I8: the copy that is had with a split is charged beyond the account's limit.
# File: hv/mm/*.c
# Test: split_copy.takes_what_it_may_and_no_more/quota split_copy.two_cpus_and_the_last_frames/quota-3
/^static pfn_t take_first_copy(/,/^}/s/account_room(account_of(pool, payer->account)) == 0 || //
