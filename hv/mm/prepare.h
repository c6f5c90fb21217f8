/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames that are filled with no lock held, before the entries they are for are compared again. The
 * source of each copy is held by a reference meanwhile, so that nobody can write it or reuse it.
 */
#ifndef MM_PREPARE_H
#define MM_PREPARE_H

#include "space.h"

#define PREPARED_MAX 16u /* a grain of 64 KiB */

struct prepared_item {
    gfn_t at;
    unsigned level;
    pte_t from; /* the entry that was read; 0 for a hole: the frame is zeroed */
    pfn_t to;   /* PFN_NONE once it is in place */
};

struct prepared {
    unsigned count;
    struct payer *payer; /* to whom 4 KiB frames go back that were not put in place; null: freed */
    struct prepared_item item[PREPARED_MAX];
};

/* Takes over frame `to` (count 1) and holds the source that `from` maps. On error `to` is freed. */
enum cleave_status prepared_add(struct mm_ctx *ctx, struct prepared *p, gfn_t at, unsigned level,
                                pte_t from, pfn_t to) MUST_CHECK;
/* Copies or zeroes each item. No lock is held. */
void prepared_fill(struct mm_ctx *ctx, struct prepared *p);
/* Gives back the sources, and the frames that were not put in place. No lock is held. */
void prepared_drop(struct mm_ctx *ctx, struct prepared *p);

#endif
