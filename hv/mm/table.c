/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is done to one nested page table: made, copied, split into, restricted, dropped. Exclusive
 * tables are changed under their lock; shared ones are only counted and lose write bits.
 */
#include "table.h"

#include "pager.h"
#include "pin.h"

enum cleave_status table_alloc(struct mm_ctx *ctx, struct payer *payer, unsigned level, pfn_t *out)
{
    enum cleave_status status = pool_alloc(ctx, payer, 0, FRAME_TABLE, out);
    if (status == CLEAVE_OK) {
        frame_of(*out, 0)->bits |= (uint16_t)(level << FRAME_LEVEL_SHIFT);
        port_zero_pages(frame_address(*out), 1);
    }
    return status;
}

unsigned table_run_length(const pte_t *slots, unsigned first, unsigned level)
{
    /* Every leaf of RAM has leaf_bits. */
    const pte_t alike =
        pt_format.address | pt_format.huge | PTE_DEVICE | (pt_format.leaf_bits & pt_format.present);
    const pte_t step = level_pages(level) << 12;
    unsigned n = 1;

    if (level == LEAF_ORDERS - 1 || pte_is_parked(slots[first])) {
        return 1;
    }
    unsigned part = level_slot(gfn(pte_pfn(slots[first]).v), level);
    unsigned most = TABLE_ENTRIES - (part > first ? part : first);
    pte_t expected = slots[first] + step;
    const pte_t *slot = &slots[first + 1];
    for (; n + 4 <= most; n += 4, slot += 4, expected += 4 * step) {
        pte_t other = (slot[0] ^ expected) | (slot[1] ^ (expected + step)) |
                      (slot[2] ^ (expected + 2 * step)) | (slot[3] ^ (expected + 3 * step));
        if ((other & alike) != 0) {
            break;
        }
    }
    for (; n < most && ((*slot ^ expected) & alike) == 0; n++, slot++) {
        expected += step;
    }
    return n;
}

void table_put(struct mm_ctx *ctx, pfn_t table)
{
    struct pool *pool = pool_of(table);
    port_point(ctx, POINT_DROP, table.v, 255);
    if (node_put(ctx, table)) {
        pool_defer_table(ctx, pool, table);
    }
}

/* Drops the references that `slots` [0, end) hold: of a table that nobody can reach. */
static void drop_entries(struct mm_ctx *ctx, const pte_t *slots, unsigned level, unsigned end)
{
    for (unsigned i = 0; i < end;) {
        pte_t e = slots[i];
        unsigned n = 1;
        if (pte_holds_table(e, level)) {
            table_put(ctx, pte_pfn(e));
        } else if (pte_holds_leaf(e, level) && pte_counted(e)) {
            n = table_run_length(slots, i, level);
            n = n > end - i ? end - i : n;
            port_point(ctx, POINT_DROP, pte_pfn(e).v, level);
            frame_put_run(ctx, pte_pfn(e), level, n);
        }
        i += n;
    }
}

/* Counts what `slots` [first, first + n) refer to once more: one table, or a run of leaves. */
static enum cleave_status count_entries(struct mm_ctx *ctx, const pte_t *slots, unsigned level,
                                        unsigned first, unsigned *n)
{
    pte_t e = slots[first];
    *n = 1;
    if (pte_holds_table(e, level)) {
        return node_get(ctx, pte_pfn(e));
    }
    if (!pte_holds_leaf(e, level) || !pte_counted(e)) {
        return CLEAVE_OK;
    }
    *n = table_run_length(slots, first, level);
    return frame_get_mapped(ctx, pte_pfn(e), level, *n);
}

/* What the entries of a table have together, and slots outside of which all are empty. */
struct contents {
    pte_t any;
    unsigned first, end;
};

/* Entries that are copied in a row before it is looked whether there were any. */
#define COPY_GROUP (TABLE_ENTRIES < 16 ? TABLE_ENTRIES : 16)

/* Copies the entries of a shared table. The copy is what gets counted, whatever changes meanwhile.
 */
static struct contents copy_entries(const pte_t *from, pte_t *to)
{
    struct contents found = {.any = 0, .first = TABLE_ENTRIES, .end = 0};

    for (unsigned i = 0; i < TABLE_ENTRIES; i += COPY_GROUP) {
        pte_t any = 0;
#pragma GCC unroll 16
        for (unsigned j = 0; j < COPY_GROUP; j++) {
            pte_t e = pte_read(&from[i + j]);
            to[i + j] = e;
            any |= e;
        }
        if (any != 0) {
            found.any |= any;
            found.first = found.first < i ? found.first : i;
            found.end = i + COPY_GROUP;
        }
    }
    return found;
}

/* Takes the write bits out of private entries of a shared table from `from` on, and out of their
 * copies in [to, end); four at a time where all have theirs. What is not present has none. */
static void share_entries(struct mm_ctx *ctx, pte_t *from, pte_t *to, const pte_t *end)
{
    const pte_t write = pt_format.write, asked = write | PTE_SHARED;

    for (; to < end; from += 4, to += 4) {
        const pte_t a = to[0] ^ write, b = to[1] ^ write, c = to[2] ^ write, d = to[3] ^ write;
        if (((a | b | c | d) & asked) == 0) {
            to[0] = a;
            to[1] = b;
            to[2] = c;
            to[3] = d;
            pte_store_without_write(ctx, &from[0], a);
            pte_store_without_write(ctx, &from[1], b);
            pte_store_without_write(ctx, &from[2], c);
            pte_store_without_write(ctx, &from[3], d);
            continue;
        }
        for (unsigned i = 0; i < 4 && (a & b & c & d & write) == 0; i++) {
            if ((to[i] & asked) == write) {
                to[i] ^= write;
                pte_store_without_write(ctx, &from[i], to[i]);
            }
        }
    }
}

/* The first slot in [i, end) of a copy that is not empty; `end` when there is none. */
static unsigned next_used(const pte_t *slots, unsigned i, unsigned end)
{
    while (i < end && slots[i] == 0) {
        i++;
    }
    return i;
}

enum cleave_status table_copy(struct mm_ctx *ctx, struct payer *payer, pfn_t table, pfn_t *out)
{
    unsigned level = table_level(table);
    enum cleave_status status = pool_alloc(ctx, payer, 0, FRAME_TABLE, out);
    if (status != CLEAVE_OK) {
        return status;
    }
    frame_of(*out, 0)->bits |= (uint16_t)(level << FRAME_LEVEL_SHIFT);
    pte_t *to = table_slots(*out);
    struct contents used = copy_entries(table_slots(table), to);
    for (unsigned i = next_used(to, used.first, used.end), n; i < used.end;
         i = next_used(to, i + n, used.end)) {
        status = count_entries(ctx, to, level, i, &n);
        if (status != CLEAVE_OK) {
            drop_entries(ctx, to, level, i);
            (void)node_put(ctx, *out);
            pool_free(ctx, *out, 0);
            return status;
        }
    }
    if (used.any & pt_format.write) {
        share_entries(ctx, table_slots(table) + used.first, to + used.first, to + used.end);
    }
    return CLEAVE_OK;
}

void table_destroy(struct mm_ctx *ctx, pfn_t table)
{
    if (frame_kind(frame_of(table, 0)) == FRAME_REGION) {
        region_destroy_node(ctx, table);
        return;
    }
    drop_entries(ctx, table_slots(table), table_level(table), TABLE_ENTRIES);
    pool_free(ctx, table, 0);
}

/* Destroys a dead table, or settles a block; false when there is neither. */
static bool reap_one(struct mm_ctx *ctx, struct pool *pool)
{
    pfn_t table = pool_next_dead_table(ctx, pool);
    if (table.v == 0) {
        return frame_settle_some(ctx, pool);
    }
    table_destroy(ctx, table);
    return true;
}

bool table_reap(struct mm_ctx *ctx, struct pool *pool)
{
    while (pool_has_dead(pool)) {
        if (!mm_spend(ctx, TABLE_ENTRIES)) {
            return false;
        }
        (void)reap_one(ctx, pool);
    }
    return true;
}

void table_reap_some(struct mm_ctx *ctx, struct pool *pool, unsigned limit)
{
    while (limit-- > 0 && reap_one(ctx, pool)) {
    }
}

/* Fills `table` with the parts of the walk's leaf and puts it in the leaf's place; frees it on
 * error, with nothing changed. */
static enum cleave_status split_into(struct mm_ctx *ctx, struct walk *walk, pfn_t table,
                                     struct flush_batch *batch)
{
    unsigned level = walk->level;
    pte_t leaf = walk->entry;
    bool paged = pte_target(leaf, level) == PTE_KIND_PAGED;
    bool counted = !paged && pte_counted(leaf);
    pte_t *slots = table_slots(table);

    MM_ASSERT(level > 0 && (paged || pte_holds_leaf(leaf, level)) && walk->exclusive);
    frame_of(table, 0)->bits |= (uint16_t)((level - 1) << FRAME_LEVEL_SHIFT);
    const pte_t step = pte_split_leaf(leaf, level, 1) - pte_split_leaf(leaf, level, 0);
    pte_t part = pte_split_leaf(leaf, level, 0);
    for (unsigned i = 0; i < TABLE_ENTRIES && paged; i++) {
        slots[i] = paged_part(leaf, i);
    }
#pragma GCC unroll 16
    for (unsigned i = 0; i < TABLE_ENTRIES && !paged; i++, part += step) {
        slots[i] = part;
    }
    enum cleave_status status = counted ? frame_split(ctx, pte_pfn(leaf), level) : CLEAVE_OK;
    if (status != CLEAVE_OK) {
        (void)node_put(ctx, table);
        pool_free(ctx, table, 0);
        return status;
    }
    pte_t entry = pte_make_table(table);
    entry = paged || pte_writable(leaf) ? pte_with_write(entry) : entry;
    while (!pte_replace(ctx, walk->slot, leaf, entry)) {
        leaf = pte_read(walk->slot); /* accessed or dirty was set */
    }
    walk->entry = entry;
    if (!paged) {
        flush_need(batch);
        *(level == 1 ? &walk->space->stats.blocks_split : &walk->space->stats.gigas_split) += 1;
    }
    return CLEAVE_OK;
}

enum cleave_status table_split_leaf(struct mm_ctx *ctx, struct payer *payer, struct walk *walk,
                                    struct flush_batch *batch)
{
    pfn_t table;
    enum cleave_status status = pool_alloc(ctx, payer, 0, FRAME_TABLE, &table);
    return status == CLEAVE_OK ? split_into(ctx, walk, table, batch) : status;
}

enum cleave_status table_split_for_copy(struct mm_ctx *ctx, struct payer *payer, struct walk *walk,
                                        struct flush_batch *batch, pfn_t *copy)
{
    pfn_t table;
    enum cleave_status status = pool_alloc_split(ctx, payer, level_slot(walk->at, 0), &table, copy);
    status = status == CLEAVE_OK ? split_into(ctx, walk, table, batch) : status;
    if (status != CLEAVE_OK && copy->v != 0) {
        frame_put(ctx, *copy, 0);
        *copy = PFN_NONE;
    }
    return status;
}

/* What a present or paged entry becomes without READ or EXEC. */
static pte_t without_right(pte_t e, unsigned right)
{
    if (right == RIGHT_READ) {
        return pte_park(e);
    }
    return e & pt_format.present ? pte_set_exec(e, false) : e;
}

/* Takes a right from one entry; true when it had it. */
static bool strip_entry(struct mm_ctx *ctx, pte_t *slot, unsigned right)
{
    pte_t e = pte_read(slot);
    if (e == 0 || pte_is_parked(e)) {
        return false;
    }
    if (right == RIGHT_WRITE) {
        bool had = (e & pt_format.present) && pte_writable(e);
        return had && pte_writable(pte_clear_bits(ctx, slot, pt_format.write));
    }
    while (without_right(e, right) != e) {
        if (pte_replace(ctx, slot, e, without_right(e, right))) {
            return true;
        }
        e = pte_read(slot); /* accessed or dirty was set */
    }
    return false;
}

void table_restrict(struct mm_ctx *ctx, struct space *space, pfn_t table, gfn_t base,
                    unsigned right)
{
    unsigned level = table_level(table);
    unsigned mask = right == RIGHT_READ    ? REGION_HAS_NO_READ
                    : right == RIGHT_WRITE ? REGION_HAS_NO_WRITE
                                           : REGION_HAS_NO_EXEC;
    pte_t *slots = table_slots(table);

    if (!(region_summary(space->regions, base, level + 1) & mask)) {
        return;
    }
    table_lock(ctx, table); /* another vcpu may be splitting a leaf here, with the rights it had */
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        gfn_t at = gfn(base.v + i * level_pages(level));
        if (pte_read(&slots[i]) != 0 && (region_summary(space->regions, at, level) & mask)) {
            (void)strip_entry(ctx, &slots[i], right);
        }
    }
    table_unlock(ctx, table);
}

void table_unpark(struct mm_ctx *ctx, struct space *space, pfn_t table, gfn_t base)
{
    unsigned level = table_level(table);
    pte_t *slots = table_slots(table);

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        gfn_t at = gfn(base.v + i * level_pages(level));
        pte_t e = pte_read(&slots[i]);
        if (pte_is_parked(e) && !(region_summary(space->regions, at, level) & REGION_HAS_NO_READ)) {
            MM_CHECK(pte_replace(ctx, &slots[i], e, pte_unpark(e)));
        }
    }
}

/* May the leaf `e` in a run of private or shared leaves have the write bit as far as regions go? */
static bool may_write(struct space *space, pte_t e, gfn_t at, unsigned level, bool restricted)
{
    /* A map of the page shows what it was before. */
    bool follow = space->foreign_count != 0 && attachments_unsettled(space, at, pte_pfn(e));
    return !pte_writable(e) && !(e & (PTE_FOREIGN | PTE_DEVICE | PTE_PENDING | PTE_PARKED)) &&
           !follow &&
           !(restricted && (region_summary(space->regions, at, level) & REGION_HAS_NO_WRITE));
}

#define GIVE_GIGAS                                                                                 \
    8u /* 1 GiB leaves that are looked at: each may take TABLE_ENTRIES looks itself */

unsigned table_give_write(struct mm_ctx *ctx, struct space *space, pfn_t table, gfn_t base)
{
    unsigned level = table_level(table);
    pte_t *slots = table_slots(table);
    bool restricted = (region_summary(space->regions, base, level + 1) & REGION_HAS_NO_WRITE) != 0;
    unsigned given = 0, looks = level < LEAF_ORDERS - 1 ? TABLE_ENTRIES : GIVE_GIGAS;

    for (unsigned i = 0, n; i < TABLE_ENTRIES && looks > 0; i += n) {
        uint64_t exclusive[RUN_WORDS] = {0};
        n = 1;
        if (!pte_is_leaf(pte_read(&slots[i]), level) || !pte_counted(pte_read(&slots[i]))) {
            continue;
        }
        n = table_run_length(slots, i, level);
        looks--;
        frame_exclusive_run(ctx, pte_pfn(slots[i]), level, n, exclusive);
        for (unsigned j = 0; j < n; j++) {
            pte_t e = pte_read(&slots[i + j]);
            gfn_t at = gfn(base.v + (i + j) * level_pages(level));
            bool alone = (e & PTE_SHARED) || (exclusive[j / 64] >> (j % 64) & 1);
            if (alone && may_write(space, e, at, level, restricted)) {
                given += pte_replace(ctx, &slots[i + j], e, pte_with_write(e));
            }
        }
    }
    return given;
}

/* Strips the entries of an exclusive table that lie in `range`; goes down into exclusive tables
 * that lie in it in part. Depth is bounded by the levels. */
static void strip_table(struct mm_ctx *ctx, pfn_t table, gfn_t base, struct gfn_range range,
                        unsigned right, struct flush_batch *batch)
{
    unsigned level = table_level(table);
    uint64_t pages = level_pages(level);
    uint64_t first = range.start.v > base.v ? (range.start.v - base.v) / pages : 0;
    pte_t *slots = table_slots(table);

    for (uint64_t i = first; i < TABLE_ENTRIES && base.v + i * pages < range.end.v; i++) {
        gfn_t at = gfn(base.v + i * pages);
        pte_t e = pte_read(&slots[i]);
        bool inside = at.v >= range.start.v && at.v + pages <= range.end.v;
        if (inside || pte_is_leaf(e, level)) {
            /* A leaf in part inside loses the right as a whole; the next fault splits it. */
            batch->needed |= strip_entry(ctx, &slots[i], right);
        } else if (pte_is_table(e, level) && node_count(pte_pfn(e)) == 1) {
            strip_table(ctx, pte_pfn(e), at, range, right, batch);
        }
    }
}

void space_strip(struct mm_ctx *ctx, struct space *space, struct gfn_range range, unsigned right,
                 struct flush_batch *batch)
{
    strip_table(ctx, space->root, gfn(0), range, right, batch);
    /* Also where nothing had the right: a fault or a collapse may have taken it and not flushed
     * yet. */
    flush_need(batch);
}
