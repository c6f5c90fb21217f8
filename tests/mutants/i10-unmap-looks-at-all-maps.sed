# I10: who looks for one page's record goes over all of them.
# File: hv/mm/*.c
# Test: foreign_many.cost_is_that_of_one
/^struct foreign_record \*foreign_record_first(/,/^}/s/return leaf/for (uint64_t k = 0; (leaf = radix_next(\&owner->foreign_pages, k)) != NULL \&\& leaf->key < page_key(at);) { k = leaf->key + 1; }\n    leaf = radix_find(\&owner->foreign_pages, page_key(at));\n    return leaf/
