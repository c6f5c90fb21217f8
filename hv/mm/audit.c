/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit of a pool that stands still: walks the tables and regions of all spaces, checks every
 * entry (write rule, shape, policy) and counts the references it meets. It shares no code with what
 * it checks but the decoding of entries and regions, takes no lock and changes nothing.
 */
#include "audit.h"

#include "pager.h"
#include "pin.h"
#include "walk.h"

/* --- Positions and violations ----------------------------------------------------------------- */

bool audit_violation(struct audit *audit, unsigned invariant, const char *what, uint64_t expected,
                     uint64_t found)
{
    struct audit_report *report = audit->report;
    if (report->invariant == 0) {
        report->invariant = invariant;
        report->what = what;
        report->space = audit->space ? audit->space->id : 0;
        report->expected = expected;
        report->found = found;
    }
    return false;
}

void audit_stand_at(struct audit *audit, pfn_t f, unsigned order)
{
    struct audit_report *report = audit->report;
    report->at = gfn(0);
    report->level = order;
    report->table = f;
    report->slot = 0;
    report->entry = 0;
}

/* --- Spaces ----------------------------------------------------------------------------------- */

static pfn_t frame_at(const void *object)
{
    return pfn(
        (uint32_t)((uint64_t)((const unsigned char *)object - machine.direct_map) >> PAGE_SHIFT));
}

bool audit_expect_object(struct audit *audit, const void *object, const char *what)
{
    pfn_t f = frame_at(object);
    if (!audit_owns(audit, f, 1) || frame_kind(frame_of(f, 0)) != FRAME_OBJECT) {
        audit_stand_at(audit, f, 0);
        return audit_violation(audit, 6, what, FRAME_OBJECT, f.v);
    }
    ++*audit_expected(audit, f, 0);
    return true;
}

static bool visit_region_node(void *arg, pfn_t node, unsigned level)
{
    struct audit *audit = arg;
    audit_stand_at(audit, node, level);
    audit->report->entries_visited++;
    if (audit->report->invariant != 0) {
        return false;
    }
    if (!audit_owns(audit, node, 1) || frame_kind(frame_of(node, 0)) != FRAME_REGION) {
        return audit_violation(audit, 6, "a region word points to no region node of this pool",
                               audit->pool->start.v, node.v);
    }
    return ++*audit_expected(audit, node, 0) == 1;
}

static bool visit_regions(struct audit *audit, region_word_t tree)
{
    region_walk(tree, visit_region_node, audit);
    return audit->report->invariant == 0;
}

bool audit_dead_node(struct audit *audit, pfn_t node)
{
    region_walk_dead(node, visit_region_node, audit);
    return audit->report->invariant == 0;
}

static bool check_space(struct audit *audit)
{
    const struct space *space = audit->space;
    audit_stand_at(audit, frame_at(space), 0);
    if (space->state < SPACE_ALIVE || space->state > SPACE_DEAD) {
        return audit_violation(audit, 6, "a space in no state", SPACE_ALIVE, space->state);
    }
    if (space->payer.pool != audit->pool || account_of(audit->pool, space->payer.account) == NULL) {
        return audit_violation(audit, 8, "a space with no account in its pool",
                               audit->pool->accounts, space->payer.account);
    }
    if (space->lock.state != 0) {
        return audit_violation(audit, 10, "a space is locked and nothing runs", 0,
                               space->lock.state);
    }
    if (space->next != NULL && space->next->previous != space) {
        return audit_violation(audit, 6, "the list of spaces is torn", space->id, space->next->id);
    }
    if (space->root.v != 0 && node_count(space->root) != 1) {
        return audit_violation(audit, 3, "a root has other holders than its space", 1,
                               node_count(space->root));
    }
    return true;
}

static bool visit_space(struct audit *audit, struct space *space)
{
    audit->space = space;
    if (!check_space(audit)) {
        return false;
    }
    /* First, since what is writable depends on what they say. */
    if (!audit_attachments(audit)) {
        return false;
    }
    if (space->root.v != 0 && !audit_root(audit, space->root)) {
        return false;
    }
    if (space->op_root.v != 0 && !audit_root(audit, space->op_root)) {
        return false;
    }
    if (space->fresh.v != 0) {
        audit_stand_at(audit, space->fresh, space->fresh_order);
        if (!audit_expect_data(audit, space->fresh, space->fresh_order)) {
            return false;
        }
    }
    return visit_regions(audit, space->regions) && visit_regions(audit, space->op_regions);
}

/* First each space is found once, then each is held by those that have it as their base. */
static bool visit_space_objects(struct audit *audit)
{
    for (struct space *s = audit->pool->spaces; s != NULL; s = s->next) {
        audit->space = NULL;
        if (!audit_expect_object(audit, s, "a space that lies in no object of the pool")) {
            return false;
        }
        if (*audit_expected(audit, frame_at(s), 0) != 1) {
            return audit_violation(audit, 6, "the list of spaces meets one twice", 1, 2);
        }
    }
    for (struct space *s = audit->pool->spaces; s != NULL; s = s->next) {
        audit->space = s;
        if (s->base != NULL && !audit_expect_object(audit, s->base, "a base that is no object")) {
            return false;
        }
    }
    for (struct space *s = audit->pool->spaces; s != NULL; s = s->next) {
        uint64_t bases = *audit_expected(audit, frame_at(s), 0) - 1;
        audit->space = s;
        audit_stand_at(audit, frame_at(s), 0);
        if (bases > s->holders) {
            return audit_violation(audit, 3, "a space has fewer holders than forks based on it",
                                   bases, s->holders);
        }
    }
    return true;
}

/* --- The audit -------------------------------------------------------------------------------- */

static void visit_load(void *arg, pfn_t f, unsigned order)
{
    struct audit *audit = arg;
    audit_stand_at(audit, f, order);
    if (audit->report->invariant == 0) {
        (void)audit_expect_data(audit, f, order);
    }
}

static bool visit_all(struct audit *audit)
{
    struct pool *pool = audit->pool;

    audit_stand_at(audit, PFN_NONE, 0);
    if (!visit_space_objects(audit)) {
        return false;
    }
    for (struct space *s = pool->spaces; s != NULL; s = s->next) {
        if (!visit_space(audit, s)) {
            return false;
        }
    }
    if (!audit_dead_tables(audit)) {
        return false;
    }
    pager_visit_loads(pool, visit_load, audit);
    if (audit->report->invariant != 0) {
        return false;
    }
    audit_stand_at(audit, PFN_NONE, 0);
    return audit_allocator(audit);
}

/* Descriptors of `order` that the pool's range touches. */
static uint64_t descriptors(const struct pool *pool, unsigned order)
{
    unsigned shift = LEVEL_BITS * order;
    return ((pool->end.v - UINT64_C(1)) >> shift) - (pool->start.v >> shift) + 1;
}

uint64_t audit_scratch_bytes(const struct pool *pool)
{
    uint64_t words = pool->accounts + UINT64_C(1);
    for (unsigned o = 0; o < LEAF_ORDERS; o++) {
        words += descriptors(pool, o);
    }
    return words * sizeof(uint32_t);
}

enum cleave_status pool_audit(struct mm_ctx *ctx, struct pool *pool, void *scratch,
                              uint64_t scratch_bytes, struct audit_report *report)
{
    struct audit audit = {.pool = pool, .report = report};
    uint64_t bytes = audit_scratch_bytes(pool);
    uint32_t *words = scratch;

    if (scratch_bytes < bytes) {
        return mm_fail(ctx, CLEAVE_COUNT, "scratch_bytes", scratch_bytes, bytes, UINT64_MAX);
    }
    *report = (struct audit_report){0};
    for (unsigned o = 0; o < LEAF_ORDERS; o++) {
        audit.expected[o] = words;
        audit.first[o] = pool->start.v >> (LEVEL_BITS * o);
        words += descriptors(pool, o);
    }
    audit.charged = words;
    if (visit_all(&audit)) {
        audit_stand_at(&audit, PFN_NONE, 0);
    }
    return CLEAVE_OK;
}
