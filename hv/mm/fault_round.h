/* SPDX-License-Identifier: BSD-2-Clause */
/* One fault under way: for fault.c, which runs its rounds, and break.c, which breaks copy-on-write.
 */
#ifndef MM_FAULT_ROUND_H
#define MM_FAULT_ROUND_H

#include "fault.h"
#include "prepare.h"
#include "walk.h"

/* What has to be done without locks before the walk is repeated. */
enum need {
    NEED_NOTHING,
    NEED_AGAIN,
    NEED_NOTIFY,
    NEED_FILL,
    NEED_LOAD,
    NEED_FOREIGN,
    NEED_CONFIRM,
    NEED_ERROR
};

struct fault {
    struct mm_ctx *ctx;
    struct space *space;
    struct payer *payer;
    struct vcpu_wait *wait;
    gfn_t at;
    enum access access;
    enum cleave_status status; /* NEED_ERROR */
    struct region region;
    struct gfn_range extent;
    struct flush_batch batch;
    struct prepared prepared;
    pfn_t copy; /* for the faulting page, had when its leaf was split; PFN_NONE: none, or used */
    struct {
        gfn_t at;
        pte_t leaf;
    } pending[PREPARED_MAX]; /* leaves that may have their write bit once the batch is flushed */
    unsigned pending_count;
    unsigned pending_level;
    uint32_t pending_turns; /* of the space, when they were found or put there */
    pte_t paged;            /* NEED_LOAD */
    unsigned paged_level;
};

static inline enum need fault_fail(struct fault *f, enum cleave_status status)
{
    f->status = status;
    return NEED_ERROR;
}

/* The walk stands on a hole: prepares a zeroed frame as large as region, alignment and pool allow.
 */
enum need fault_first_touch(struct fault *f, const struct walk *walk);
/* The walk stands on a leaf that a write met; all tables above are exclusive and writable. */
enum need fault_write_leaf(struct fault *f, struct walk *walk);
/* Splits the leaf that the walk stands on. */
enum need fault_split(struct fault *f, struct walk *walk);
/* Walks again and installs what was prepared. The first item is the faulting page's. */
enum need fault_commit(struct fault *f);
/* The flush is done: gives the pending leaves their write bits where nothing changed meanwhile. */
enum need fault_confirm(struct fault *f);

#endif
