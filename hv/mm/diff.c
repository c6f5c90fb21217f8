/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where two spaces of a family differ. Both trees are walked in step under the readers' side of
 * both spaces' locks; what both share (one table, one block, one frame) is passed over whole. At
 * each step both walks hold a table lock, so that no entry that is looked at can be dropped
 * meanwhile.
 */
#include "fork.h"
#include "table.h"

/* Pages whose bytes are compared before the table locks are let go. */
#define DIFF_CHUNK UINT64_C(64)

struct differ {
    struct mm_ctx *ctx;
    struct space *space[2]; /* in address order */
    struct diff *diff;
    gfn_t at;          /* everything before is decided */
    gfn_t limit;       /* up to here, pages are holes that read alike in both, or mapped in both */
    bool apart;        /* up to `limit`, one space has memory where the other has none */
    uint64_t compared; /* pages whose bytes were compared since the walks began */
    struct walk walk[2];
};

/* What the walks say about the pages from `at`. */
enum verdict { SAME, DIFFERENT, DESCEND };

/* --- Regions ---------------------------------------------------------------------------------- */

/* Sets `limit` and `apart` from `at` on. Stops early, which is correct too, when the budget is
 * gone. */
static void compare_regions(struct differ *d)
{
    gfn_t at = d->at;
    d->apart = false;
    d->limit = d->diff->end;
    if (d->space[0]->regions == d->space[1]->regions) {
        return;
    }
    do {
        struct gfn_range extent[2];
        bool fills[2];
        for (unsigned i = 0; i < 2; i++) {
            fills[i] =
                region_policy_fills(region_get_extent(d->space[i]->regions, at, &extent[i]).policy);
        }
        bool apart = fills[0] != fills[1];
        if (at.v != d->at.v && apart != d->apart) {
            break;
        }
        d->apart = apart;
        at = extent[0].end.v < extent[1].end.v ? extent[0].end : extent[1].end;
    } while (at.v < d->diff->end.v && mm_spend(d->ctx, 1));
    d->limit = at.v < d->diff->end.v ? at : d->diff->end;
}

/* --- Reporting -------------------------------------------------------------------------------- */

/* Adds [start, end), which begins at or after all that was found; false when there is no room. */
static bool report(struct diff *diff, gfn_t start, gfn_t end)
{
    if (diff->count > 0 && diff->found[diff->count - 1].end.v == start.v) {
        diff->found[diff->count - 1].end = end;
        return true;
    }
    if (diff->count == diff->room) {
        return false;
    }
    diff->found[diff->count++] = (struct gfn_range){start, end};
    return true;
}

/* --- Bytes ------------------------------------------------------------------------------------ */

/* The page at `at` of one side: its bytes, or null for a hole that reads as zeros. */
static const uint64_t *page_words(const struct walk *walk, gfn_t at)
{
    if (walk->entry == 0) {
        return NULL;
    }
    return frame_address(pfn_add(pte_pfn(walk->entry), at.v & (level_pages(walk->level) - 1)));
}

static bool words_equal(const uint64_t *a, const uint64_t *b)
{
    const uint64_t words = PAGE_SIZE / sizeof(uint64_t);
    for (uint64_t i = 0; i < words; i += 4) {
        uint64_t x = 0;
        for (uint64_t j = i; j < i + 4; j++) {
            x |= (a != NULL ? a[j] : 0) ^ (b != NULL ? b[j] : 0);
        }
        if (x != 0) {
            return false;
        }
    }
    return true;
}

/* Bytes can be looked at: RAM, or a hole that reads as zeros. */
static bool comparable(const struct walk *walk)
{
    pte_t e = walk->entry;
    if (e == 0) {
        return region_policy_fills(region_get(walk->space->regions, walk->at).policy);
    }
    return pte_holds_leaf(e, walk->level) && pte_counted(e);
}

/* Compares the pages [at, end) of two entries one by one. Stops for want of budget or room, or
 * after a chunk; `at` says where. False when the call has to stop. */
static bool compare_bytes(struct differ *d, gfn_t end)
{
    while (d->at.v < end.v && d->compared < DIFF_CHUNK) {
        d->compared++;
        d->diff->bytes_compared += PAGE_SIZE;
        if (!words_equal(page_words(&d->walk[0], d->at), page_words(&d->walk[1], d->at)) &&
            !report(d->diff, d->at, gfn(d->at.v + 1))) {
            return false;
        }
        d->at.v++;
        if (!mm_spend(d->ctx, 1)) {
            return false;
        }
    }
    return true;
}

/* --- Entries ---------------------------------------------------------------------------------- */

/* What an entry that is no table says about page `at`, apart from its rights, so that it may be
 * parked: 0 for a hole. */
static pte_t page_meaning(const struct walk *walk, gfn_t at)
{
    pte_t e = walk->entry;
    uint64_t offset = at.v & (level_pages(walk->level) - 1);

    switch (pte_target(e, walk->level)) {
    case PTE_KIND_LEAF:
        return ((uint64_t)pte_pfn(e).v + offset) << 12 | 1;
    case PTE_KIND_PAGED:
        return pte_make_paged(pte_paged_payload(e) + offset);
    case PTE_KIND_ABSENT:
    case PTE_KIND_TABLE:
    case PTE_KIND_PARKED:
        break;
    }
    return 0;
}

/* Are two paged entries of one pager? Their stores are other ones if not. */
static bool same_pager(const struct differ *d)
{
    gfn_t at = d->at;
    return region_get(d->space[0]->regions, at).pager == region_get(d->space[1]->regions, at).pager;
}

/* Compares what both walks stand on. `*end`: the verdict holds up to there. */
static enum verdict compare_entries(const struct differ *d, gfn_t *end)
{
    const struct walk *a = &d->walk[0];
    const struct walk *b = &d->walk[1];
    bool table_a = pte_holds_table(a->entry, a->level);
    bool table_b = pte_holds_table(b->entry, b->level);
    unsigned level = a->level < b->level ? a->level : b->level;

    *end = gfn(level_align(d->at, level).v + level_pages(level));
    *end = end->v < d->limit.v ? *end : d->limit;
    if (table_a && table_b && a->level == b->level && pte_pfn(a->entry).v == pte_pfn(b->entry).v) {
        return SAME;
    }
    if (table_a || table_b) {
        return DESCEND;
    }
    if (pte_target(a->entry, a->level) == PTE_KIND_PAGED && !same_pager(d)) {
        return DIFFERENT;
    }
    return page_meaning(a, d->at) == page_meaning(b, d->at) ? SAME : DIFFERENT;
}

/* Decides the pages from `at` as far as both walks' present entries reach; `*descend`: it takes
 * walks to lower entries. False when the call has to stop. */
static bool decide(struct differ *d, bool *descend)
{
    gfn_t end;

    *descend = false;
    switch (compare_entries(d, &end)) {
    case SAME:
        break;
    case DESCEND:
        *descend = true;
        return true;
    case DIFFERENT:
        if (d->diff->exact && comparable(&d->walk[0]) && comparable(&d->walk[1])) {
            return compare_bytes(d, end);
        }
        if (!report(d->diff, d->at, end)) {
            return false;
        }
        break;
    }
    d->at = end;
    return mm_spend(d->ctx, 1);
}

/* Reads the walk's entry anew for `at`, which its table still covers. */
static void look_again(struct walk *walk, gfn_t at)
{
    walk->at = at;
    walk->slot = &table_slots(walk->table)[level_slot(at, walk->level)];
    walk->entry = pte_read(walk->slot);
}

/* Goes on within the two tables that the walks hold until one of them ends or a lower table has to
 * be entered; `*descend` as above. */
static bool scan_tables(struct differ *d, bool *descend)
{
    unsigned level = d->walk[0].level < d->walk[1].level ? d->walk[0].level : d->walk[1].level;
    gfn_t end = gfn(level_align(d->at, level + 1).v + level_pages(level + 1));

    end = end.v < d->limit.v ? end : d->limit;
    for (;;) {
        if (!decide(d, descend)) {
            return false;
        }
        if (*descend || d->at.v >= end.v || d->compared == DIFF_CHUNK) {
            return true;
        }
        look_again(&d->walk[0], d->at);
        look_again(&d->walk[1], d->at);
    }
}

/* One round from `at`: from the roots down until something is decided. Each walk passes over what
 * is decided at its level and then goes down at the first entry that is not. */
static bool diff_round(struct differ *d)
{
    bool go_on = true;
    bool descend = true;

    for (unsigned stop = ROOT_LEVEL + 1; go_on && descend && stop-- > 0;) {
        for (unsigned i = 0; i < 2; i++) {
            walk_find(d->ctx, d->space[i], d->at, stop, &d->walk[i]);
        }
        d->compared = 0;
        go_on = scan_tables(d, &descend);
        walk_end(d->ctx, &d->walk[1]);
        walk_end(d->ctx, &d->walk[0]);
    }
    return go_on;
}

static enum cleave_status diff_locked(struct differ *d)
{
    bool go_on = true;

    while (go_on && d->at.v < d->diff->end.v) {
        if (d->at.v >= d->limit.v) {
            compare_regions(d);
        } else if (d->apart) {
            go_on = report(d->diff, d->at, d->limit);
            d->at = go_on ? d->limit : d->at;
        } else {
            go_on = diff_round(d);
        }
    }
    d->diff->from = d->at;
    if (d->at.v < d->diff->end.v) {
        port_point(d->ctx, POINT_PREEMPT, d->space[0]->id, OP_NONE);
        return CLEAVE_AGAIN;
    }
    return CLEAVE_OK;
}

static enum cleave_status diff_check(struct mm_ctx *ctx, const struct space *a,
                                     const struct space *b, const struct diff *diff)
{
    if (a->payer.pool != b->payer.pool) {
        return mm_fail(ctx, CLEAVE_FAMILY, "b", b->id, a->id, a->id);
    }
    if (diff->end.v > GUEST_PAGES) {
        return mm_fail(ctx, CLEAVE_RANGE, "diff.end", diff->end.v, 0, GUEST_PAGES);
    }
    if (diff->from.v > diff->end.v) {
        return mm_fail(ctx, CLEAVE_RANGE, "diff.from", diff->from.v, 0, diff->end.v);
    }
    if (diff->room == 0) {
        return mm_fail(ctx, CLEAVE_COUNT, "diff.room", 0, 1, UINT32_MAX);
    }
    return CLEAVE_OK;
}

static enum cleave_status alive_check(struct mm_ctx *ctx, const struct space *space)
{
    if (space->state == SPACE_ALIVE || space->state == SPACE_FROZEN) {
        return CLEAVE_OK;
    }
    return mm_fail(ctx, CLEAVE_DYING, "space", space->id, 1, 0);
}

enum cleave_status space_diff(struct mm_ctx *ctx, struct space *a, struct space *b,
                              struct diff *diff)
{
    enum cleave_status status = diff_check(ctx, a, b, diff);
    if (status != CLEAVE_OK) {
        return status;
    }
    struct differ d = {.ctx = ctx, .diff = diff, .at = diff->from, .limit = diff->from};
    d.space[0] = (uintptr_t)a < (uintptr_t)b ? a : b;
    d.space[1] = (uintptr_t)a < (uintptr_t)b ? b : a;

    diff->count = 0;
    diff->bytes_compared = 0;
    read_lock(ctx, &d.space[0]->lock, RANK_SPACE);
    if (a != b) {
        read_lock(ctx, &d.space[1]->lock, RANK_SPACE);
    }
    status = alive_check(ctx, a);
    status = status == CLEAVE_OK ? alive_check(ctx, b) : status;
    if (status == CLEAVE_OK && a == b) {
        diff->from = diff->end;
    } else if (status == CLEAVE_OK) {
        status = diff_locked(&d);
    }
    if (a != b) {
        read_unlock(ctx, &d.space[1]->lock, RANK_SPACE);
    }
    read_unlock(ctx, &d.space[0]->lock, RANK_SPACE);
    return status;
}
