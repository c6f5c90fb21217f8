/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared memory made private: carries such a change of regions over to the tables. */
#ifndef MM_CONVERT_H
#define MM_CONVERT_H

#include "change.h"

/*
 * The `carry` of a change from shared to private regions: every leaf of the range becomes the
 * space's own, by a copy where others map it. Up to PHASE_CONVERT nobody can tell, and it may fail
 * (CLEAVE_NO_MEMORY, CLEAVE_QUOTA, CLEAVE_OVERFLOW) or be given up; all frames are had by then, so
 * that from then on it only stops. Meanwhile a page is either shared still or private already. One
 * unit for each leaf looked at, and for each page copied, a table's at a time.
 */
enum cleave_status convert_shared(struct mm_ctx *ctx, struct region_change *change) MUST_CHECK;

#endif
