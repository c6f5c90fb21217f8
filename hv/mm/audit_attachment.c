/* SPDX-License-Identifier: BSD-2-Clause */
/* The part of the audit that is about pins and foreign maps: their records, what they show, and the
 * two trees that foreign maps are found by. */
#include "audit.h"

#include "foreign.h"
#include "walk.h"

/* --- Pins and foreign maps -------------------------------------------------------------------- */

/* What the tables of a space say about page `at`, parked or not; absent where that is no leaf. */
static pte_t find_leaf(const struct space *space, gfn_t at, unsigned *level)
{
    pfn_t table = space->root;
    for (unsigned l = ROOT_LEVEL; table.v != 0; l--) {
        pte_t e = table_slots(table)[level_slot(at, l)];
        *level = l;
        if (!pte_holds_table(e, l)) {
            return pte_holds_leaf(e, l) ? pte_unpark(e) : 0;
        }
        table = pte_pfn(e);
    }
    return 0;
}

static pfn_t leaf_page(pte_t e, unsigned level, gfn_t at)
{
    return pfn_add(pte_pfn(e), at.v & (level_pages(level) - 1));
}

/* The record's frame is what the mapper sees, and the owner unless it has unmapped the page; only a
 * map that has broken the copy may write. */
static bool check_foreign(struct audit *audit, const struct attachment *a)
{
    unsigned level = 0;
    pfn_t page = attachment_frame(a, a->at);
    pte_t theirs = find_leaf(a->mapper, a->mapper_at, &level);

    audit->report->entry = theirs;
    if (!(theirs & PTE_FOREIGN) || leaf_page(theirs, level, a->mapper_at).v != page.v) {
        return audit_violation(audit, 2, "a foreign map shows another frame than its record",
                               page.v, leaf_page(theirs, level, a->mapper_at).v);
    }
    if (pte_writable(theirs) && !a->written) {
        return audit_violation(audit, 1, "a foreign map is writable before its copy was broken", 0,
                               theirs);
    }
    pte_t ours = find_leaf(audit->space, a->at, &level);
    if (!a->detached && (ours == 0 || leaf_page(ours, level, a->at).v != page.v)) {
        return audit_violation(audit, 2, "a foreign map shows another frame than its owner", page.v,
                               leaf_page(ours, level, a->at).v);
    }
    return true;
}

/* What a device or another space writes to is nobody else's, but for shared regions. */
static bool check_pinned_pages(struct audit *audit, const struct attachment *a)
{
    for (uint64_t i = 0; i < a->pages; i++) {
        gfn_t at = gfn(a->at.v + i);
        pfn_t f = attachment_frame(a, at);
        unsigned level = 0;
        pte_t ours = find_leaf(audit->space, at, &level);
        audit->report->at = at;
        if (region_get(audit->space->regions, at).policy == REGION_SHARED || ours == 0 ||
            leaf_page(ours, level, at).v != f.v) {
            continue; /* or it has been unmapped: it may have been of a shared region */
        }
        uint64_t own = attachments_at(audit->space, at, f);
        if (audit_references(f, 0) > 1 + own) {
            return audit_violation(audit, 1, "a frame pinned for writing is shared", 1 + own,
                                   audit_references(f, 0));
        }
    }
    return true;
}

/* Counts the references of a record: on a block, or on each of its pages. */
static bool expect_attachment(struct audit *audit, const struct attachment *a)
{
    uint64_t leaves = a->order == 0 ? a->pages : 1;
    for (uint64_t i = 0; i < leaves; i++) {
        if (!audit_expect_data(audit, pfn_add(a->frame, i), a->order)) {
            return false;
        }
    }
    return true;
}

/* Looks at one record of the space's pages, and counts what it holds. */
static bool visit_attachment(struct audit *audit, const struct attachment *a)
{
    audit_stand_at(audit, a->frame, a->order);
    audit->report->at = a->at;
    if (a->kind > ATTACH_FOREIGN || a->order >= LEAF_ORDERS || a->pages == 0 ||
        (a->order > 0 &&
         level_pages(a->order) - (a->at.v & (level_pages(a->order) - 1)) < a->pages)) {
        return audit_violation(audit, 6, "a malformed pin or foreign map", level_pages(a->order),
                               a->pages);
    }
    if (!expect_attachment(audit, a)) {
        return false;
    }
    if (a->kind == ATTACH_FOREIGN && !check_foreign(audit, a)) {
        return false;
    }
    bool writes = a->kind == ATTACH_PIN_WRITE || (a->kind == ATTACH_FOREIGN && a->written);
    return !writes || check_pinned_pages(audit, a);
}

static bool visit_pins(struct audit *audit)
{
    struct space *space = audit->space;
    uint64_t found = 0;

    if (space->attachments != NULL &&
        !audit_expect_object(audit, space->attachments, "pins that lie in no object of the pool")) {
        return false;
    }
    for (unsigned i = 0; space->attachments != NULL && i < ATTACHMENTS; i++) {
        const struct attachment *a = &space->attachments[i];
        if (a->kind == ATTACH_NONE) {
            continue;
        }
        found++;
        if (a->kind == ATTACH_FOREIGN) {
            return audit_violation(audit, 6, "a foreign map among the pins", ATTACH_NONE, a->kind);
        }
        if (!visit_attachment(audit, a)) {
            return false;
        }
    }
    audit_stand_at(audit, PFN_NONE, 0);
    return found + space->foreign_count == space->attachment_count ||
           audit_violation(audit, 3, "the number of pins", found,
                           (uint64_t)space->attachment_count - space->foreign_count);
}

/* --- The trees of foreign maps ---------------------------------------------------------------- */

struct tree_audit {
    struct audit *audit;
    bool (*leaf)(struct tree_audit *tree, struct radix_node *leaf);
    uint64_t frames;           /* nodes and leaves */
    uint64_t records, written; /* in leaves */
};

/* The parent is of a higher level and has the node at the place of its key. */
static bool fits(const struct radix_node *parent, const struct radix_node *node, unsigned slot)
{
    unsigned below = RADIX_BITS * (parent->level - 1);
    uint64_t mask = (UINT64_C(1) << (RADIX_BITS * node->level)) - 1;
    return node->level < parent->level && (node->key & mask) == 0 &&
           node->key >> below == (parent->key >> below | slot);
}

static bool visit_node(struct tree_audit *tree, struct radix_node *node)
{
    struct audit *audit = tree->audit;
    uint64_t used = 0;

    if (!audit_expect_object(audit, node, "a node of foreign maps that is no object of the pool")) {
        return false;
    }
    tree->frames++;
    if (node->level == 0) {
        return tree->leaf(tree, node);
    }
    for (unsigned i = 0; i < RADIX_FAN; i++) {
        struct radix_node *child = radix_children(node)[i];
        if (child == NULL) {
            continue;
        }
        used++;
        if (!fits(node, child, i)) {
            return audit_violation(audit, 6, "a node of foreign maps in the wrong place", i,
                                   child->key);
        }
        if (!visit_node(tree, child)) {
            return false;
        }
    }
    return (used == node->used && used >= 2) ||
           audit_violation(audit, 6, "children of a node of foreign maps", used, node->used);
}

/* Is the record where its mapper's page says, in a leaf of the mapper's? */
static bool in_place(const struct foreign_record *r)
{
    return foreign_record_find(r->a.mapper, r->a.mapper_at) == r;
}

/* Is the record among those of its owner's page? */
static bool is_linked(const struct foreign_record *r)
{
    const struct foreign_record *other = foreign_record_first(r->owner, r->a.at);
    for (unsigned i = 0; i < FOREIGN_PAGE_MAX && other != NULL && other != r; i++) {
        other = other->next;
    }
    return other == r;
}

static bool visit_page(struct tree_audit *tree, const struct foreign_record *first, gfn_t at)
{
    struct audit *audit = tree->audit;
    const struct foreign_record *previous = NULL;
    unsigned count = 0;

    for (const struct foreign_record *r = first; r != NULL; previous = r, r = r->next) {
        if (++count > FOREIGN_PAGE_MAX) {
            return audit_violation(audit, 6, "foreign maps of a page", FOREIGN_PAGE_MAX, count);
        }
        if (r->a.kind != ATTACH_FOREIGN || r->owner != audit->space || r->a.at.v != at.v ||
            r->previous != previous || r->a.pages != 1 || r->a.order != 0 || !in_place(r)) {
            return audit_violation(audit, 6, "a foreign map that is not in its place", at.v,
                                   r->a.at.v);
        }
        tree->records++;
        tree->written += attachment_pins(&r->a);
    }
    for (const struct foreign_record *r = first; r != NULL; r = r->next) {
        if (!visit_attachment(audit, &r->a)) {
            return false;
        }
    }
    return true;
}

/* A leaf of `foreign_pages`. */
static bool visit_pages(struct tree_audit *tree, struct radix_node *leaf)
{
    struct foreign_record *const *first = (struct foreign_record *const *)(leaf + 1);
    uint64_t records = tree->records, written = tree->written;

    for (unsigned i = 0; i < RADIX_FAN; i++) {
        if (!visit_page(tree, first[i], gfn(leaf->key * RADIX_FAN + i))) {
            return false;
        }
    }
    records = tree->records - records;
    written = tree->written - written;
    audit_stand_at(tree->audit, PFN_NONE, 0);
    if (leaf->count != written) {
        return audit_violation(tree->audit, 3, "maps that are written through in a leaf", written,
                               leaf->count);
    }
    return (records == leaf->used && records > 0) ||
           audit_violation(tree->audit, 3, "foreign maps in a leaf", records, leaf->used);
}

/* A leaf of `foreign_maps`. */
static bool visit_maps(struct tree_audit *tree, struct radix_node *leaf)
{
    const struct foreign_record *all = (const struct foreign_record *)leaf + 1;
    uint64_t records = 0;

    for (unsigned i = 0; i < FOREIGN_RECORDS; i++) {
        if (all[i].a.kind == ATTACH_NONE) {
            continue;
        }
        records++;
        if (all[i].a.mapper != tree->audit->space ||
            all[i].a.mapper_at.v != leaf->key * FOREIGN_RECORDS + i || !is_linked(&all[i])) {
            return audit_violation(tree->audit, 6, "a foreign map that its owner does not know",
                                   leaf->key * FOREIGN_RECORDS + i, all[i].a.mapper_at.v);
        }
    }
    tree->records += records;
    return (records == leaf->used && records > 0) ||
           audit_violation(tree->audit, 3, "records in a leaf", records, leaf->used);
}

static bool visit_tree(struct tree_audit *tree, const struct radix *radix)
{
    if (radix->root != NULL && !visit_node(tree, radix->root)) {
        return false;
    }
    return tree->frames == radix->frames ||
           audit_violation(tree->audit, 3, "frames of foreign maps", tree->frames, radix->frames);
}

bool audit_attachments(struct audit *audit)
{
    struct space *space = audit->space;
    struct tree_audit pages = {.audit = audit, .leaf = visit_pages};
    struct tree_audit maps = {.audit = audit, .leaf = visit_maps};

    if (!visit_pins(audit) || !visit_tree(&pages, &space->foreign_pages) ||
        !visit_tree(&maps, &space->foreign_maps)) {
        return false;
    }
    if (pages.records != space->foreign_count) {
        return audit_violation(audit, 3, "the number of foreign maps", pages.records,
                               space->foreign_count);
    }
    return pages.written == space->foreign_written ||
           audit_violation(audit, 3, "maps that are written through", pages.written,
                           space->foreign_written);
}
