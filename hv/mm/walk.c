/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Walks down a space's tables, handing the table locks down. The deepest exclusive table's lock is
 * what a walk holds when it stops.
 */
#include "walk.h"

#include "table.h"

void table_lock(struct mm_ctx *ctx, pfn_t table)
{
    uint16_t *bits = &frame_of(table, 0)->bits;
    lock_enter(ctx, RANK_TABLE);
    while (__atomic_fetch_or(bits, FRAME_LOCK, __ATOMIC_ACQUIRE) & FRAME_LOCK) {
        port_relax(ctx);
    }
}

void table_unlock(struct mm_ctx *ctx, pfn_t table)
{
    __atomic_fetch_and(&frame_of(table, 0)->bits, (uint16_t)~FRAME_LOCK, __ATOMIC_RELEASE);
    lock_leave(ctx, RANK_TABLE);
}

static void walk_begin(struct mm_ctx *ctx, struct space *space, gfn_t at, struct walk *walk)
{
    table_lock(ctx, space->root);
    *walk = (struct walk){.space = space,
                          .at = at,
                          .level = ROOT_LEVEL,
                          .table = space->root,
                          .locked = space->root,
                          .exclusive = true,
                          .rights = RIGHT_ALL};
}

/* Reads the walk's entry in its present table. */
static inline void walk_read(struct walk *walk)
{
    walk->slot = &table_slots(walk->table)[level_slot(walk->at, walk->level)];
    walk->entry = pte_read(walk->slot);
    if (walk->parked == 0 && pte_is_parked(walk->entry)) {
        walk->parked = walk->level + 1;
    }
}

/* The walk ends at its present entry. */
static void walk_stop(struct walk *walk)
{
    if (pte_is_leaf(walk->entry, walk->level) || pte_is_parked(walk->entry)) {
        walk->rights &= pte_rights(walk->entry);
    }
}

/* Steps down into `table`, to which the present entry points; its lock is taken if it is exclusive.
 */
static inline void walk_down(struct mm_ctx *ctx, struct walk *walk, pfn_t table)
{
    walk->rights &= pte_rights(walk->entry);
    walk->exclusive = walk->exclusive && node_count(table) == 1;
    if (walk->exclusive) {
        table_lock(ctx, table);
        table_unlock(ctx, walk->locked);
        walk->locked = table;
    }
    walk->table = table;
    walk->level--;
    walk_read(walk);
}

void walk_find(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned stop, struct walk *walk)
{
    walk_begin(ctx, space, at, walk);
    walk_read(walk);
    while (walk->level > stop && pte_holds_table(walk->entry, walk->level)) {
        walk_down(ctx, walk, pte_pfn(walk->entry));
    }
    walk_stop(walk);
}

/* Rights that a table entry on the way gets back: first the entries of its table that must not have
 * them lose theirs, then the entry is changed. A parked one always gets READ. */
static void walk_give(struct mm_ctx *ctx, struct walk *walk, unsigned flags, pfn_t table)
{
    gfn_t base = level_align(walk->at, walk->level);
    pte_t entry = walk->entry;

    if (pte_is_parked(entry)) {
        table_restrict(ctx, walk->space, table, base, RIGHT_READ);
        entry = pte_unpark(entry);
        walk->parked = 0;
    }
    if ((flags & WALK_WRITE) && !pte_writable(entry)) {
        table_restrict(ctx, walk->space, table, base, RIGHT_WRITE);
        entry = pte_with_write(entry);
        walk->given = true;
    }
    if ((flags & WALK_EXEC) && !pte_executable(entry)) {
        table_restrict(ctx, walk->space, table, base, RIGHT_EXEC);
        entry = pte_set_exec(entry, true);
    }
    while (entry != walk->entry && !pte_replace(ctx, walk->slot, walk->entry, entry)) {
        /* The hardware set an accessed bit: nobody else changes a locked table. */
        pte_t now = pte_read(walk->slot);
        entry |= now & (pt_format.accessed | pt_format.dirty);
        walk->entry = now;
    }
    walk->entry = entry;
}

/* The walk's entry points to a shared table: a copy takes its place. */
static enum cleave_status walk_copy_table(struct mm_ctx *ctx, struct payer *payer,
                                          struct walk *walk, struct flush_batch *batch)
{
    pfn_t shared = pte_pfn(walk->entry);
    pfn_t copy;
    enum cleave_status status = table_copy(ctx, payer, shared, &copy);
    if (status != CLEAVE_OK) {
        return status;
    }
    port_point(ctx, POINT_TABLE_COPIED, shared.v, copy.v);
    pte_t new = pte_with_pfn(walk->entry, copy);
    pte_t old = walk->entry;
    while (!pte_replace(ctx, walk->slot, old, new)) {
        old = pte_read(walk->slot);
        MM_CHECK(pte_pfn(old).v == shared.v);
        new |= old &pt_format.accessed;
    }
    walk->entry = new;
    walk->space->stats.tables_copied++;
    flush_drop_table(batch, shared);
    return CLEAVE_OK;
}

static enum cleave_status walk_make_table(struct mm_ctx *ctx, struct payer *payer,
                                          struct walk *walk)
{
    pfn_t table;
    enum cleave_status status = table_alloc(ctx, payer, walk->level - 1, &table);
    if (status != CLEAVE_OK) {
        return status;
    }
    pte_t new = pte_with_write(pte_make_table(table)); /* nothing beneath: nothing to restrict */
    MM_CHECK(pte_replace(ctx, walk->slot, 0, new));
    walk->entry = new;
    return CLEAVE_OK;
}

/* Is there nothing to do for the walk's entry: a table's of its own, with the rights asked for? */
static inline bool walk_ready(const struct walk *walk, unsigned flags)
{
    pte_t e = walk->entry;
    return pte_is_table(e, walk->level) && (!(flags & WALK_WRITE) || pte_writable(e)) &&
           (!(flags & WALK_EXEC) || pte_executable(e)) && node_count(pte_pfn(e)) == 1;
}

/* Makes it so. False where the walk ends: the entry is no table's, or `*status` says why not. */
static bool walk_prepare(struct mm_ctx *ctx, struct payer *payer, struct walk *walk, unsigned flags,
                         struct flush_batch *batch, enum cleave_status *status)
{
    enum pte_kind target = pte_target(walk->entry, walk->level);

    if (target == PTE_KIND_ABSENT && (flags & WALK_MAKE)) {
        *status = walk_make_table(ctx, payer, walk);
    } else if (target != PTE_KIND_TABLE) {
        return false;
    } else if (node_count(pte_pfn(walk->entry)) != 1) {
        *status = walk_copy_table(ctx, payer, walk, batch);
    }
    if (*status != CLEAVE_OK) {
        return false;
    }
    walk_give(ctx, walk, flags, pte_pfn(walk->entry));
    return true;
}

enum cleave_status walk_exclusive(struct mm_ctx *ctx, struct space *space, struct payer *payer,
                                  gfn_t at, unsigned stop, unsigned flags,
                                  struct flush_batch *batch, struct walk *walk)
{
    enum cleave_status status = CLEAVE_OK;

    walk_begin(ctx, space, at, walk);
    walk_read(walk);
    while (walk->level > stop &&
           (walk_ready(walk, flags) || walk_prepare(ctx, payer, walk, flags, batch, &status))) {
        walk_down(ctx, walk, pte_pfn(walk->entry));
    }
    if (status != CLEAVE_OK) {
        walk_end(ctx, walk);
        return status;
    }
    walk_stop(walk);
    return CLEAVE_OK;
}

void walk_into(struct mm_ctx *ctx, struct walk *walk)
{
    walk_down(ctx, walk, pte_pfn(walk->entry));
    walk_stop(walk);
}

void walk_end(struct mm_ctx *ctx, struct walk *walk) { table_unlock(ctx, walk->locked); }
