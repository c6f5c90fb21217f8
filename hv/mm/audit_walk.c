/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part of the audit that walks nested page tables: shape, policy and write rule of every entry,
 * and the references that entries hold. A shared table is walked once, where it is first met.
 */
#include "audit.h"

#include "pager.h"
#include "pin.h"
#include "walk.h"

uint32_t audit_count(pfn_t f, unsigned order)
{
    uint32_t split = order < LEAF_ORDERS - 1 ? run_of(f, order + 1)->split : 0;
    return frame_of(f, order)->count + split;
}

uint64_t audit_references(pfn_t f, unsigned order)
{
    uint64_t sum = 0;
    for (unsigned o = order; o < LEAF_ORDERS; o++) {
        sum += audit_count(f, o);
    }
    return sum;
}

/* True when something beneath the block of `order` at `f` is referenced on its own. */
static bool used_beneath(pfn_t f, unsigned order)
{
    uint64_t used = 0;
    for (unsigned o = order; o > 0; o--) {
        const struct run *run = run_of(f, o);
        for (uint64_t i = 0; i < level_pages(order - o); i++) {
            used |= run[i].used;
        }
    }
    return used != 0;
}

/* --- Leaves ----------------------------------------------------------------------------------- */

/* How a table or leaf is reached. */
struct audit_path {
    gfn_t at;        /* first page beneath it */
    unsigned level;  /* of the entries of the table, or of the leaf */
    bool exclusive;  /* the space is known and every table on the way is its own */
    unsigned rights; /* AND over the entries above */
};

/* What marks the leaves of a region; all bits where there may be no leaf. */
static pte_t policy_mark(enum region_policy policy)
{
    switch (policy) {
    case REGION_PRIVATE:
    case REGION_READ_ONLY:
    case REGION_WIPE:
    case REGION_ABSENT:
    case REGION_PAGED:
        return 0;
    case REGION_SHARED:
        return PTE_SHARED;
    case REGION_DEVICE:
        return PTE_DEVICE;
    case REGION_FOREIGN:
        return PTE_FOREIGN;
    case REGION_NONE:
    case REGION_POLICIES:
        break;
    }
    return ~UINT64_C(0);
}

/* Has a change from shared to private that is stopped come past the page? */
static bool is_converted(const struct space *space, gfn_t at)
{
    return space->op == OP_REGION && space->op_phase == PHASE_CONVERT &&
           at.v >= space->op_range.start.v && at.v < space->op_at.v;
}

#define PTE_MARKS (PTE_SHARED | PTE_DEVICE | PTE_FOREIGN)

/* A leaf or paged entry on a path of the space's own lies within one policy, which it fits. */
static bool check_policy(struct audit *audit, pte_t e, const struct audit_path *path)
{
    uint64_t end = path->at.v + level_pages(path->level);
    bool paged = pte_kind(e, path->level) == PTE_KIND_PAGED;

    for (gfn_t at = path->at; at.v < end;) {
        struct gfn_range extent;
        struct region region = region_get_extent(audit->space->regions, at, &extent);
        if (paged && region.policy != REGION_PAGED) {
            return audit_violation(audit, 6, "a paged entry outside a paged region", REGION_PAGED,
                                   region.policy);
        }
        pte_t mark = policy_mark(is_converted(audit->space, at) ? REGION_PRIVATE : region.policy);
        if (!paged && mark != (e & PTE_MARKS)) {
            return audit_violation(audit, 6, "a leaf does not fit the policy of its region", mark,
                                   e & PTE_MARKS);
        }
        at = extent.end;
    }
    return true;
}

/* The region of this space gives what the leaf lets through, and nothing armed can be written. */
static bool check_rights(struct audit *audit, pte_t e, const struct audit_path *path)
{
    unsigned rights = path->rights & pte_rights(e);
    unsigned lacks = region_summary(audit->space->regions, path->at, path->level);

    if ((rights & RIGHT_WRITE) && audit->space->state == SPACE_FROZEN) {
        return audit_violation(audit, 1, "a snapshot can be written", 0, rights);
    }
    if ((rights & RIGHT_WRITE) && (lacks & REGION_HAS_NO_WRITE)) {
        return audit_violation(audit, 1, "writable in a region that is armed or read-only", 0,
                               rights);
    }
    if ((rights & RIGHT_EXEC) && (lacks & REGION_HAS_NO_EXEC)) {
        return audit_violation(audit, 6, "executable in a region that is not", 0, rights);
    }
    return true;
}

/* No leaf of `table`, whose entries are of `level` from `base` on, can be read where the region of
 * this space lacks READ, nor can one be loaded there: through whatever tables, each space for
 * itself. Goes down where it does. */
static bool check_unreadable(struct audit *audit, pfn_t table, unsigned level, gfn_t base)
{
    const pte_t *slots = table_slots(table);

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        gfn_t at = gfn(base.v + i * level_pages(level));
        pte_t e = slots[i];
        bool lacks = (region_summary(audit->space->regions, at, level) & REGION_HAS_NO_READ) != 0;
        if (!lacks || e == 0 || pte_is_parked(e)) {
            continue;
        }
        if (!pte_is_table(e, level)) {
            audit_stand_at(audit, table, level);
            audit->report->at = at;
            audit->report->slot = i;
            audit->report->entry = e;
            return audit_violation(audit, 1, "readable in a region that is not", 0, e);
        }
        if (!check_unreadable(audit, pte_pfn(e), level - 1, at)) {
            return false;
        }
    }
    return true;
}

/* References of the space's own pins and foreign maps on the chain of the block of `order` at `f`.
 */
static uint64_t own_references(const struct audit *audit, gfn_t at, pfn_t f, unsigned order,
                               bool exclusive)
{
    bool any = exclusive && audit->space->attachment_count != 0;
    return any ? attachments_above(audit->space, at, f, order) : 0;
}

/* Beneath the writable leaf of `path` at `f`, only the space's own pins and maps hold parts. */
static bool check_beneath(struct audit *audit, pfn_t f, const struct audit_path *path)
{
    for (unsigned order = path->level; order-- > 0;) {
        for (uint64_t i = 0; i < level_pages(path->level); i += level_pages(order)) {
            pfn_t part = pfn_add(f, i);
            uint64_t own = own_references(audit, gfn(path->at.v + i), part, order, path->exclusive);
            if (audit_count(part, order) > 0 && audit_references(part, order) > 1 + own) {
                return audit_violation(audit, 1,
                                       "a leaf is writable and parts of its block are shared",
                                       1 + own, audit_references(part, order));
            }
        }
    }
    return true;
}

/* The write rule for a leaf of private memory. */
static bool check_leaf_write(struct audit *audit, pte_t e, const struct audit_path *path)
{
    pfn_t f = pte_pfn(e);
    uint64_t references = audit_references(f, path->level);
    uint64_t own = own_references(audit, path->at, f, path->level, path->exclusive);

    if (references > 1 + own) {
        return audit_violation(audit, 1, "a leaf is writable and its frame is shared", 1 + own,
                               references);
    }
    return path->level == 0 || !used_beneath(f, path->level) || check_beneath(audit, f, path);
}

/* Bits, alignment and software marks of a leaf. */
static bool check_leaf_shape(struct audit *audit, pte_t e, unsigned level)
{
    pte_t kind = e & PTE_DEVICE ? pt_format.device_bits : pt_format.leaf_bits;
    pte_t marks = e & PTE_MARKS;
    pte_t legal = kind | pt_format.address | pt_format.write | pt_format.exec | pt_format.accessed |
                  pt_format.dirty | PTE_MARKS | (level > 0 ? pt_format.huge : 0) |
                  (pte_writable(e) ? 0 : PTE_PENDING);
    uint64_t frame = (e & pt_format.address) >> 12;

    if (level >= LEAF_ORDERS) {
        return audit_violation(audit, 6, "a leaf at a level that has none", LEAF_ORDERS - 1, level);
    }
    if (e & pt_format.reserved_leaf[level]) {
        return audit_violation(audit, 6, "reserved or unaligned bits in a leaf", 0,
                               e & pt_format.reserved_leaf[level]);
    }
    if ((e & ~legal) != 0 || (e & kind) != kind) {
        return audit_violation(audit, 6, "bits that no leaf of its kind has", kind, e & ~legal);
    }
    if ((marks & (marks - 1)) != 0) {
        return audit_violation(audit, 6, "more than one software mark in a leaf", 0, marks);
    }
    if (frame == 0 || frame > UINT32_MAX) {
        return audit_violation(audit, 6, "a leaf with no frame number", UINT32_MAX, frame);
    }
    if (level > 0 && pte_executable(e) && !machine.huge_exec) {
        return audit_violation(audit, 6, "an executable huge leaf", 0, level);
    }
    return true;
}

static bool check_device(struct audit *audit, pte_t e, unsigned level)
{
    for (uint64_t i = 0; i < level_pages(level); i += level_pages(1)) {
        if (pte_pfn(e).v + i < machine.frames && pool_of(pfn_add(pte_pfn(e), i)) != NULL) {
            return audit_violation(audit, 6, "a device leaf maps a frame of a pool", 0,
                                   pte_pfn(e).v + i);
        }
    }
    return true;
}

/* True when the descriptors say that a frame or block of `order` may be mapped. */
static bool is_data(pfn_t f, unsigned order)
{
    for (unsigned o = order; o < LEAF_ORDERS; o++) {
        if (audit_count(f, o) > 0 && frame_kind(frame_of(f, o)) == FRAME_DATA) {
            return true;
        }
    }
    return order < 2 && audit_unsettled(f);
}

/* Counts one reference of a leaf, pin, map or load. */
bool audit_expect_data(struct audit *audit, pfn_t f, unsigned order)
{
    if (!audit_owns(audit, f, level_pages(order)) || (f.v & (level_pages(order) - 1)) != 0) {
        return audit_violation(audit, 6, "a reference to a frame outside the pool",
                               audit->pool->start.v, f.v);
    }
    ++*audit_expected(audit, f, order);
    if (!is_data(f, order)) {
        return audit_violation(audit, 3, "a reference to a frame that holds no data", FRAME_DATA,
                               frame_kind(frame_of(f, order)));
    }
    return true;
}

static bool visit_leaf(struct audit *audit, pte_t e, const struct audit_path *path)
{
    if (!check_leaf_shape(audit, e, path->level)) {
        return false;
    }
    if (e & PTE_DEVICE) {
        if (!check_device(audit, e, path->level)) {
            return false;
        }
    } else if (!(e & PTE_FOREIGN)) {
        if (!audit_expect_data(audit, pte_pfn(e), path->level)) {
            return false;
        }
        if (pte_writable(e) && !(e & PTE_SHARED) && !check_leaf_write(audit, e, path)) {
            return false;
        }
    } else if (pool_of(pte_pfn(e)) == audit->pool && !is_data(pte_pfn(e), path->level)) {
        /* Its reference is its record's, or its load's. */
        return audit_violation(audit, 3, "a foreign leaf maps a frame that holds no data",
                               FRAME_DATA, frame_kind(frame_of(pte_pfn(e), path->level)));
    }
    return !path->exclusive || (check_policy(audit, e, path) && check_rights(audit, e, path));
}

/* --- Tables ----------------------------------------------------------------------------------- */

static bool visit_paged(struct audit *audit, pte_t e, const struct audit_path *path)
{
    if (path->level > 1) {
        return audit_violation(audit, 6, "a paged entry at a level that has none", 1, path->level);
    }
    if ((e & ~PTE_PAGED_OWN) != pte_make_paged(pte_paged_payload(e))) {
        return audit_violation(audit, 6, "a malformed paged entry",
                               pte_make_paged(pte_paged_payload(e)), e);
    }
    return !path->exclusive || check_policy(audit, e, path);
}

/* Counts the entry's reference to a table of `level` and checks what such a table must be. */
static bool expect_table(struct audit *audit, pfn_t table, unsigned level, bool *first)
{
    if (!audit_owns(audit, table, 1) || frame_kind(frame_of(table, 0)) != FRAME_TABLE) {
        return audit_violation(audit, 6, "an entry points to no table of this pool",
                               audit->pool->start.v, table.v);
    }
    if (table_level(table) != level) {
        return audit_violation(audit, 6, "a table stands at another level than its own", level,
                               table_level(table));
    }
    if (frame_of(table, 0)->bits & FRAME_LOCK) {
        return audit_violation(audit, 10, "a table is locked and nothing runs", 0, table.v);
    }
    *first = ++*audit_expected(audit, table, 0) == 1;
    return true;
}

static bool check_table_entry(struct audit *audit, pte_t e)
{
    pte_t legal = pt_format.table_bits | pt_format.address | pt_format.write | pt_format.exec |
                  pt_format.accessed;
    if (e & pt_format.reserved_table) {
        return audit_violation(audit, 6, "reserved bits in a table entry", 0,
                               e & pt_format.reserved_table);
    }
    if ((e & ~legal) != 0 || (e & pt_format.table_bits) != pt_format.table_bits) {
        return audit_violation(audit, 6, "bits that no table entry has", pt_format.table_bits,
                               e & ~legal);
    }
    if (((e & pt_format.address) >> 12) > UINT32_MAX) {
        return audit_violation(audit, 6, "a table entry with no frame number", UINT32_MAX,
                               (e & pt_format.address) >> 12);
    }
    return true;
}

static bool visit_table(struct audit *audit, pfn_t table, const struct audit_path *path);

static bool visit_table_entry(struct audit *audit, pte_t e, const struct audit_path *path)
{
    bool first;
    if (!check_table_entry(audit, e) || !expect_table(audit, pte_pfn(e), path->level - 1, &first)) {
        return false;
    }
    uint64_t count = audit_count(pte_pfn(e), 0);
    if (pte_writable(e) && count != 1) {
        return audit_violation(audit, 1, "a table entry is writable and its table is shared", 1,
                               count);
    }
    struct audit_path below = {.at = path->at,
                               .level = path->level - 1,
                               .exclusive = path->exclusive && count == 1,
                               .rights = path->rights & pte_rights(e)};
    return !first || visit_table(audit, pte_pfn(e), &below);
}

static bool visit_entry(struct audit *audit, pte_t e, const struct audit_path *path);

/* A parked entry refers to and counts what it is without that, and lets nothing through. It may
 * stand where the region gives READ: nobody has read there since. */
static bool visit_parked(struct audit *audit, pte_t e, const struct audit_path *path)
{
    struct audit_path below = *path;
    below.rights = 0;
    if (pte_park(pte_unpark(e)) != e) {
        return audit_violation(audit, 6, "a malformed parked entry", pte_park(pte_unpark(e)), e);
    }
    return visit_entry(audit, pte_unpark(e), &below);
}

static bool visit_entry(struct audit *audit, pte_t e, const struct audit_path *path)
{
    switch (pte_kind(e, path->level)) {
    case PTE_KIND_ABSENT:
        return e == 0 || audit_violation(audit, 6, "stray bits in an absent entry", 0, e);
    case PTE_KIND_TABLE:
        return visit_table_entry(audit, e, path);
    case PTE_KIND_LEAF:
        return visit_leaf(audit, e, path);
    case PTE_KIND_PAGED:
        return visit_paged(audit, e, path);
    case PTE_KIND_PARKED:
        return visit_parked(audit, e, path);
    }
    return true;
}

/* Checks every entry of a table that is reached for the first time. At most ROOT_LEVEL deep. */
static bool visit_table(struct audit *audit, pfn_t table, const struct audit_path *path)
{
    const pte_t *slots = table_slots(table);
    struct audit_report *report = audit->report;

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        struct audit_path here = *path;
        here.at.v += i * level_pages(path->level);
        report->at = here.at;
        report->level = path->level;
        report->table = table;
        report->slot = i;
        report->entry = slots[i];
        report->entries_visited++;
        if (!visit_entry(audit, slots[i], &here)) {
            return false;
        }
    }
    return true;
}

/* What is staged is no region yet: only shape and references are checked. */
bool audit_root(struct audit *audit, pfn_t root)
{
    bool first;
    struct audit_path path = {.at = gfn(0),
                              .level = ROOT_LEVEL,
                              .exclusive = root.v == audit->space->root.v,
                              .rights = RIGHT_ALL};

    audit_stand_at(audit, root, 0);
    if (!expect_table(audit, root, ROOT_LEVEL, &first) ||
        (first && !visit_table(audit, root, &path))) {
        return false;
    }
    /* A reset that stopped half-way goes on before the space runs. */
    return audit->space->op == OP_RESET ||
           !(region_summary_all(audit->space->regions) & REGION_HAS_NO_READ) ||
           check_unreadable(audit, root, ROOT_LEVEL, gfn(0));
}

/* Their entries are still to be dropped. Each is marked, so that neither a second place on the list
 * nor an entry that points to it goes unseen. */
bool audit_dead_tables(struct audit *audit)
{
    audit->space = NULL;
    for (pfn_t t = pfn(audit->pool->reap_tables); t.v != 0; t = pfn(frame_of(t, 0)->rmap)) {
        audit_stand_at(audit, t, 0);
        bool node = audit_owns(audit, t, 1) && frame_kind(frame_of(t, 0)) == FRAME_REGION;
        bool table = node || (audit_owns(audit, t, 1) && frame_kind(frame_of(t, 0)) == FRAME_TABLE);
        if (!table || audit_count(t, 0) != 0 || *audit_expected(audit, t, 0) != 0) {
            return audit_violation(audit, 8, "what is to be reaped is no dead table", 0,
                                   table ? audit_count(t, 0) : t.v);
        }
        struct audit_path path = {.level = table_level(t)};
        *audit_expected(audit, t, 0) = AUDIT_DEAD;
        if (node ? !audit_dead_node(audit, t) : !visit_table(audit, t, &path)) {
            return false;
        }
    }
    return true;
}
