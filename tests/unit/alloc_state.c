/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of a machine, whatever test made it: its pools found by their frames, audited, reduced
 * to what guests can tell, and destroyed to the last frame. The machine stands still.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "audit.h"
#include "calls.h"
#include "cap_tree.h"
#include "channel.h"
#include "load.h"
#include "table.h"
#include "test.h"

#define STEPS_MAX 1000000u /* calls until something is destroyed */
#define BUDGET 3u          /* of each */

/* --- What there is ---------------------------------------------------------------------------- */

static unsigned find_pools(struct pool *pools[ALLOC_POOLS])
{
    unsigned count = 0;

    for (uint64_t f = level_pages(1); f < machine.frames && count < ALLOC_POOLS;) {
        struct pool *pool = pool_of(pfn((uint32_t)f));
        if (pool != NULL) {
            pools[count++] = pool;
            f = pool->end.v;
        } else {
            f += level_pages(1);
        }
    }
    return count;
}

static pfn_t frame_at(const void *object)
{
    uint64_t offset = (uint64_t)((const unsigned char *)object - machine.direct_map);
    bool inside = (const unsigned char *)object >= machine.direct_map &&
                  offset >> PAGE_SHIFT < machine.frames;
    return inside ? pfn((uint32_t)(offset >> PAGE_SHIFT)) : PFN_NONE;
}

void alloc_forget_tree(void) { cap_tree.root = NULL; }

static bool caps_live(void) { return cap_tree.root != NULL; }

/* The pager in one of the table's places, if it is of this machine and pool. */
static struct pager *pager_in(unsigned place, const struct pool *pool)
{
    struct pager *pager = pager_peek(place);
    pfn_t f = frame_at(pager);
    bool live = pager != NULL && f.v != 0 && pool_of(f) == pool &&
                frame_kind(frame_of(f, 0)) == FRAME_OBJECT && pager->pool == pool;
    return live ? pager : NULL;
}

static uint64_t account_pages(const struct pool *pool)
{
    const uint64_t records = PAGE_SIZE / sizeof(struct account);
    return (pool->accounts + records - 1) / records;
}

/* Frames that hold objects of the pool's own. */
static uint64_t own_objects(const struct pool *pool)
{
    uint64_t count = 2 + account_pages(pool); /* the pool, the directory */

    for (const struct space *s = pool->spaces; s != NULL; s = s->next) {
        count += 1 + (s->attachments != NULL) + s->foreign_pages.frames + s->foreign_maps.frames;
    }
    for (const struct channel *c = pool->channels; c != NULL; c = c->next) {
        count++;
    }
    for (unsigned i = 0; i < PAGERS_MAX; i++) {
        count += pager_in(i, pool) != NULL;
    }
    return count;
}

static uint64_t own_reserved(const struct pool *pool)
{
    uint64_t count = 0;
    for (const struct space *s = pool->spaces; s != NULL; s = s->next) {
        count += s->payer.reserved + s->op_payer.reserved;
    }
    return count;
}

/* Accounts that live, but for those of spaces. */
static uint64_t stray_accounts(struct pool *pool)
{
    uint64_t count = 0;

    for (uint32_t i = 1; i <= pool->accounts; i++) {
        count += account_of(pool, i)->live;
    }
    for (const struct space *s = pool->spaces; s != NULL; s = s->next) {
        count--;
    }
    return count;
}

/* --- What guests can tell --------------------------------------------------------------------- */

static uint64_t mix(uint64_t sum, uint64_t v)
{
    sum = (sum ^ v) * UINT64_C(0xff51afd7ed558ccd);
    return sum ^ sum >> 32;
}

/* All pages of a small machine, else some of each 2 MiB, whatever maps them. */
static bool is_looked_at(uint64_t page)
{
    uint64_t part = page % TABLE_ENTRIES;
    return TABLE_ENTRIES <= 4 || part < 2 || part == TABLE_ENTRIES - 1;
}

/* Zero for a page of zeros: it reads as one that is not there yet. */
static uint64_t sum_page(uint64_t page, pfn_t f)
{
    uint64_t sum = 0;
    uint64_t any = 0;
    uint64_t word[PAGE_SIZE / 8];

    if (f.v >= machine.frames || !is_looked_at(page)) {
        return f.v >= machine.frames ? mix(page, f.v) : 0;
    }
    memcpy(word, frame_address(f), PAGE_SIZE);
    for (uint64_t i = 0; i < PAGE_SIZE / 8; i++) {
        sum = mix(sum, word[i]);
        any |= word[i];
    }
    return any == 0 ? 0 : mix(sum, page);
}

/* A page that is still to be loaded: what its base has, which a load would give it, or its name. */
static uint64_t sum_paged(const struct space *space, uint64_t page, pte_t paged)
{
    const struct space *base = paged & PTE_PAGED_OWN ? NULL : space->base;
    pfn_t table = base != NULL ? base->root : PFN_NONE;

    for (unsigned level = ROOT_LEVEL; table.v != 0; level--) {
        pte_t e = pte_read(&table_slots(table)[level_slot(gfn(page), level)]);
        if (pte_holds_leaf(e, level)) {
            return sum_page(page, pfn_add(pte_pfn(e), page & (level_pages(level) - 1)));
        }
        table = pte_holds_table(e, level) ? pte_pfn(e) : PFN_NONE;
    }
    return mix(page, pte_paged_payload(paged));
}

/* The pages beneath a table whose first is `page`, in any order; parked or not. */
static uint64_t sum_table(const struct space *space, pfn_t table, unsigned level, uint64_t page)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < TABLE_ENTRIES; i++, page += level_pages(level)) {
        pte_t e = pte_unpark(pte_read(&table_slots(table)[i]));
        switch (pte_kind(e, level)) {
        case PTE_KIND_ABSENT:
        case PTE_KIND_PARKED:
            break;
        case PTE_KIND_TABLE:
            sum += sum_table(space, pte_pfn(e), level - 1, page);
            break;
        case PTE_KIND_LEAF:
            for (uint64_t n = 0; n < level_pages(level); n++) {
                sum += sum_page(page + n, pfn_add(pte_pfn(e), n));
            }
            break;
        case PTE_KIND_PAGED:
            for (uint64_t n = 0; n < level_pages(level); n++) {
                sum += sum_paged(space, page + n, e + (n << 12));
            }
            break;
        }
    }
    return sum;
}

static uint64_t sum_region(const struct region *r, struct gfn_range range)
{
    uint64_t sum = mix(mix(range.start.v, range.end.v), r->policy);
    sum = mix(sum, (uint64_t)r->rights << 8 | r->order);
    sum = mix(sum, (uint64_t)r->notify << 3 | (uint64_t)r->whole << 1 | r->fork_refuse);
    return mix(sum, (uint64_t)r->channel << 16 | r->pager);
}

static uint64_t sum_regions(region_word_t tree)
{
    struct gfn_range whole = {gfn(0), gfn(0)};
    struct region region = {0};
    uint64_t last = 0;
    uint64_t sum = 0;

    for (gfn_t at = gfn(0); at.v < GUEST_PAGES;) {
        struct gfn_range extent;
        struct region next = region_get_extent(tree, at, &extent);
        uint64_t key = sum_region(&next, (struct gfn_range){gfn(0), gfn(0)});
        if (key != last) {
            sum += region.policy != REGION_NONE ? sum_region(&region, whole) : 0;
            region = next;
            last = key;
            whole.start = extent.start;
        }
        whole.end = at = extent.end;
    }
    return sum + (region.policy != REGION_NONE ? sum_region(&region, whole) : 0);
}

static uint64_t sum_pool(const struct pool *pool, bool *settled)
{
    uint64_t sum = mix(pool->frames, pool->dying);

    for (const struct space *s = pool->spaces; s != NULL; s = s->next) {
        sum = mix(mix(sum, s->id), s->state);
        *settled = *settled && s->op == OP_NONE && s->collapsing == 0;
        if (s->state == SPACE_ALIVE || s->state == SPACE_FROZEN) {
            sum = mix(mix(sum, (uintptr_t)s->base), s->attachment_count);
            sum = mix(sum, sum_regions(s->regions));
            sum = mix(sum, sum_table(s, s->root, ROOT_LEVEL, 0));
        }
    }
    for (const struct channel *c = pool->channels; c != NULL; c = c->next) {
        sum = mix(sum, c->number);
    }
    for (unsigned i = 0; i < PAGERS_MAX; i++) {
        sum = mix(sum, (uintptr_t)pager_in(i, pool));
    }
    return sum;
}

static uint64_t sum_node(uint64_t sum, const struct cnode *node)
{
    return mix(mix(sum, (uint64_t)node->dying << 32 | node->holders), node->used);
}

static uint64_t sum_caps(bool *settled)
{
    const struct cap_link *head = &cap_tree.head.link;
    uint64_t sum = sum_node(1, cap_tree.root);

    for (const struct cap_link *link = head->next; link != head; link = link->next) {
        sum = mix(sum, (uintptr_t)link);
        if (link_is_marker(link)) {
            *settled = false;
            continue;
        }
        const struct cap *slot = (const struct cap *)(const void *)link;
        sum = mix(mix(sum, (uintptr_t)slot->object), (uint64_t)slot->mark << 32 | slot->users);
        sum = mix(sum, (uint64_t)slot->generation << 32 | slot->level);
        sum = mix(sum, (uint64_t)slot->type << 24 | (uint64_t)slot->rights << 16 |
                           (uint64_t)slot->flags << 8 | slot->depth);
        if (slot->type == CAP_CNODE && (slot->flags & CAP_FIRST)) {
            sum = sum_node(sum, slot->object);
        }
    }
    return sum;
}

/* --- Audits ----------------------------------------------------------------------------------- */

static bool audit_pool(struct pool *pool, char text[ALLOC_TEXT])
{
    struct audit_report report = {0};
    uint64_t bytes = audit_scratch_bytes(pool);
    void *scratch = calloc(1, bytes);
    struct mm_ctx ctx = {0};
    bool done = scratch != NULL && pool_audit(&ctx, pool, scratch, bytes, &report) == CLEAVE_OK;

    free(scratch);
    if (done && report.invariant == 0) {
        return true;
    }
    snprintf(text, ALLOC_TEXT,
             "audit: I%u: %s: space %u page %#" PRIx64 " level %u table %#x slot %u entry %#" PRIx64
             ", %" PRIu64 " expected, %" PRIu64 " found",
             report.invariant, report.what ? report.what : "no memory", report.space, report.at.v,
             report.level, report.table.v, report.slot, report.entry, report.expected,
             report.found);
    return false;
}

static bool audit_all(char text[ALLOC_TEXT])
{
    struct pool *pools[ALLOC_POOLS];
    unsigned count = find_pools(pools);

    for (unsigned i = 0; i < count; i++) {
        if (!audit_pool(pools[i], text)) {
            return false;
        }
    }
    if (caps_live()) {
        struct cap_report report;
        struct mm_ctx ctx = {0};
        if (cap_audit(&ctx, &report) != CLEAVE_OK || report.what != NULL) {
            snprintf(text, ALLOC_TEXT, "audit of capabilities: %s: handle %#" PRIx64 " type %d",
                     report.what ? report.what : "none", report.handle, (int)report.type);
            return false;
        }
    }
    return true;
}

static bool locks_held(void)
{
    for (unsigned i = 0; i < machine.cpus; i++) {
        if (host_ctx(i)->lock_depth != 0) {
            return true;
        }
    }
    return false;
}

bool alloc_settled(void)
{
    struct pool *pools[ALLOC_POOLS];
    unsigned count = find_pools(pools);
    bool settled = true;

    for (unsigned i = 0; i < count; i++) {
        for (const struct space *s = pools[i]->spaces; s != NULL; s = s->next) {
            settled = settled && s->op == OP_NONE && s->collapsing == 0;
        }
    }
    return settled;
}

bool alloc_audit(char text[ALLOC_TEXT])
{
    if (!audit_all(text)) {
        return false;
    }
    host_tlb_check();
    return true;
}

void alloc_observe(struct alloc_state *state)
{
    struct pool *pools[ALLOC_POOLS];
    char text[ALLOC_TEXT];

    *state = (struct alloc_state){.pools = find_pools(pools)};
    state->locked = locks_held();
    state->sound = !state->locked && audit_all(text);
    state->settled = state->sound;
    for (unsigned i = 0; i < state->pools && state->sound; i++) {
        struct pool *pool = pools[i];
        state->view = mix(state->view, sum_pool(pool, &state->settled));
        state->pool[i] = (struct alloc_pool){.pool = pool,
                                             .reserved = pool->reserved,
                                             .stray = pool->kind[FRAME_OBJECT] - own_objects(pool),
                                             .stray_reserved = pool->reserved - own_reserved(pool),
                                             .stray_accounts = stray_accounts(pool)};
    }
    if (state->sound && caps_live()) {
        state->view = mix(state->view, sum_caps(&state->settled));
    }
}

bool alloc_compare(const struct alloc_state *before, char text[ALLOC_TEXT])
{
    struct alloc_state now;

    alloc_observe(&now);
    if (now.view != before->view || now.pools != before->pools) {
        snprintf(text, ALLOC_TEXT, "it failed, and guests or holders of capabilities can tell");
        return false;
    }
    for (unsigned i = 0; i < now.pools; i++) {
        if (now.pool[i].reserved > before->pool[i].reserved) {
            snprintf(text, ALLOC_TEXT,
                     "it failed, and %" PRIu64 " frames are reserved, not %" PRIu64,
                     now.pool[i].reserved, before->pool[i].reserved);
            return false;
        }
        if (now.pool[i].stray != before->pool[i].stray ||
            now.pool[i].stray_accounts != before->pool[i].stray_accounts) {
            snprintf(text, ALLOC_TEXT,
                     "it failed, and %" PRIu64 " objects and %" PRIu64
                     " accounts are nobody's, not %" PRIu64 " and %" PRIu64,
                     now.pool[i].stray, now.pool[i].stray_accounts, before->pool[i].stray,
                     before->pool[i].stray_accounts);
            return false;
        }
    }
    return true;
}

/* --- The end of everything -------------------------------------------------------------------- */

static void stop_cpus(void)
{
    host_on_point(NULL, NULL);
    host_on_wake(NULL, NULL);
    host_on_starved(NULL, NULL);
    for (unsigned i = 0; i < machine.cpus; i++) {
        host_cpu_set_wait(i, NULL);
        host_cpu_detach(i);
        host_cpu_stop(i);
    }
}

/* What keeps a space from being destroyed. */
static void let_go(struct mm_ctx *ctx, struct pool *pool)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};

    while (pool->wait_first != NULL) {
        pool_cancel_wait(ctx, pool, pool->wait_first);
    }
    for (struct space *s = pool->spaces; s != NULL; s = s->next) {
        struct attachment *a = attachment_next(s, NULL, everything);
        while (a != NULL) {
            struct attachment *next = attachment_next(s, a, everything);
            uint32_t id = a->id;
            if (a->kind != ATTACH_FOREIGN && space_unpin(ctx, s, id) == CLEAVE_OK) {
                next = attachment_next(s, NULL, everything);
            }
            a = next;
        }
    }
}

/* Takes back all that came from boot. */
static bool revoke_all(struct mm_ctx *ctx, char text[ALLOC_TEXT])
{
    const struct cap *head = &cap_tree.head;
    enum cleave_status status = CLEAVE_OK;
    unsigned calls = 0;

    for (struct cap *slot = cap_after(&head->link); slot != head; slot = cap_after(&slot->link)) {
        slot->users = 0; /* the test was between cap_use() and cap_end() */
    }
    for (struct cap *slot = cap_after(&head->link); slot != head; slot = cap_after(&slot->link)) {
        do {
            ctx->budget = BUDGET;
            status = cap_revoke(ctx, slot->node, cap_name(slot));
        } while (status == CLEAVE_AGAIN && ++calls < STEPS_MAX);
        if (status != CLEAVE_OK) {
            snprintf(text, ALLOC_TEXT, "revoking all that there is returns %d", (int)status);
            return false;
        }
    }
    return true;
}

/* The next to go: not a base that others still hold, if there is another. */
static struct space *pick(struct pool *pool)
{
    struct space *space = pool->spaces;
    while (space->next != NULL && space->state == SPACE_FROZEN && space->holders > 1) {
        space = space->next;
    }
    return space->state == SPACE_FROZEN && space->holders > 1 ? pool->spaces : space;
}

static bool destroy_spaces(struct mm_ctx *ctx, struct pool *pool, char text[ALLOC_TEXT])
{
    for (unsigned calls = 0; pool->spaces != NULL; calls++) {
        struct space *space = pick(pool);
        uint32_t id = space->id;
        ctx->budget = BUDGET;
        if (space->state == SPACE_DEAD) {
            space_release(ctx, space); /* the test held it */
            continue;
        }
        enum cleave_status status = space_destroy(ctx, space);
        if (status != CLEAVE_OK && (status != CLEAVE_AGAIN || calls == STEPS_MAX)) {
            snprintf(text, ALLOC_TEXT, "destroying space %u returns %d", id, (int)status);
            return false;
        }
    }
    return true;
}

static bool destroy_pagers(struct mm_ctx *ctx, struct pool *pool, char text[ALLOC_TEXT])
{
    for (unsigned i = 0; i < PAGERS_MAX; i++) {
        struct pager *pager = pager_in(i, pool);
        enum cleave_status status = CLEAVE_OK;
        if (pager != NULL) {
            ctx->budget = UINT64_MAX;
            status = pager_destroy(ctx, pager);
        }
        if (status != CLEAVE_OK) {
            snprintf(text, ALLOC_TEXT, "destroying a pager returns %d", (int)status);
            return false;
        }
    }
    return true;
}

static bool check_empty(const struct alloc_state *before, struct pool *pool, char text[ALLOC_TEXT])
{
    struct alloc_pool held = {0};

    for (unsigned i = 0; i < before->pools; i++) {
        held = before->pool[i].pool == pool ? before->pool[i] : held;
    }
    uint64_t expected = pool->frames - 2 - account_pages(pool) - held.stray;
    if (pool->free != expected) {
        snprintf(text, ALLOC_TEXT,
                 "%" PRIu64 " frames are free at the end, not %" PRIu64 " (used: %" PRIu64
                 " data, %" PRIu64 " tables, %" PRIu64 " region nodes, %" PRIu64 " objects)",
                 pool->free, expected, pool->kind[FRAME_DATA], pool->kind[FRAME_TABLE],
                 pool->kind[FRAME_REGION], pool->kind[FRAME_OBJECT]);
        return false;
    }
    if (stray_accounts(pool) != held.stray_accounts) {
        snprintf(text, ALLOC_TEXT, "%" PRIu64 " accounts live at the end, not %" PRIu64,
                 stray_accounts(pool), held.stray_accounts);
        return false;
    }
    /* A vcpu of the test's that was woken has its grant. */
    if (pool->reserved != held.stray_reserved && host_counters().wakes == 0) {
        snprintf(text, ALLOC_TEXT, "%" PRIu64 " frames are reserved at the end, not %" PRIu64,
                 pool->reserved, held.stray_reserved);
        return false;
    }
    return true;
}

bool alloc_destroy(const struct alloc_state *before, char text[ALLOC_TEXT])
{
    struct pool *pools[ALLOC_POOLS];
    struct mm_ctx *ctx = host_ctx(0);
    unsigned count = find_pools(pools);

    stop_cpus();
    for (unsigned i = 0; i < count; i++) {
        let_go(ctx, pools[i]);
    }
    if (caps_live() && !revoke_all(ctx, text)) {
        return false;
    }
    count = find_pools(pools);
    for (unsigned i = 0; i < count; i++) {
        if (!destroy_pagers(ctx, pools[i], text)) {
            return false;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        if (!destroy_spaces(ctx, pools[i], text)) {
            return false;
        }
        while (pools[i]->channels != NULL) {
            channel_destroy(ctx, pools[i]->channels);
        }
        if (!check_empty(before, pools[i], text)) {
            return false;
        }
    }
    host_check_locks();
    return alloc_audit(text);
}
