/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Checks the derivation tree and the nodes while no call is in flight. One pass over the list, with
 * the line of ancestors of the place it stands at, and one over the slots of each node. Takes no
 * lock.
 */
#include "cap_tree.h"

/* Where the pass over the list stands. */
struct cap_audit {
    struct cap_report *report;
    unsigned depth;                            /* of the last capability */
    const struct cap *line[CAP_DEPTH_MAX + 1]; /* it and its ancestors, by depth */
    uint64_t bound[CAP_DEPTH_MAX + 2]; /* memory of the next child at this depth ends below */
    bool open[CAP_DEPTH_MAX + 1];      /* root of a revoke whose marker is still to come */
    unsigned opens;
    uint64_t occupied; /* slots, by the pass over the nodes */
};

/* Records the first violation. Always false. */
static bool wrong(struct cap_audit *audit, const struct cap *slot, const char *what,
                  uint64_t expected, uint64_t found)
{
    struct cap_report *report = audit->report;

    if (report->what == NULL) {
        report->what = what;
        report->handle = slot != NULL && slot->node != NULL ? cap_name(slot).v : 0;
        report->type = slot != NULL ? (enum cap_type)slot->type : CAP_NONE;
        report->expected = expected;
        report->found = found;
    }
    return false;
}

/* --- Derivation ------------------------------------------------------------------------------- */

static bool is_space(const struct cap *slot)
{
    return slot->type == CAP_SPACE || slot->type == CAP_SNAPSHOT;
}

/* The host frames of an object that was retyped. */
static struct pfn_range frames_of(const struct cap *slot)
{
    if (slot->type == CAP_UNTYPED) {
        return slot->range;
    }
    if (slot->type == CAP_CNODE) {
        const struct cnode *node = slot->object;
        return (struct pfn_range){node->frame, pfn_add(node->frame, node->frames)};
    }
    const struct pool *pool = slot->object;
    return (struct pfn_range){pool->start, pool->end};
}

/* An object out of untyped memory: inside it, below its watermark, apart from its siblings. The
 * newest comes first, so addresses fall along the list. */
static bool check_memory(struct cap_audit *audit, const struct cap *slot, const struct cap *parent)
{
    struct pfn_range range = frames_of(slot);
    bool top = slot->depth == 1;
    unsigned level = slot->node->level;

    if (!top && parent->type != CAP_UNTYPED) {
        return wrong(audit, slot, "memory that comes from no untyped", CAP_UNTYPED, parent->type);
    }
    if (range.start.v >= range.end.v || range.end.v > audit->bound[slot->depth]) {
        return wrong(audit, slot, "an object overlaps another, or its memory was not handed out",
                     audit->bound[slot->depth], range.end.v);
    }
    if (!top && range.start.v < parent->range.start.v) {
        return wrong(audit, slot, "an object lies outside of its untyped", parent->range.start.v,
                     range.start.v);
    }
    audit->bound[slot->depth] = range.start.v;
    level = !top && parent->level > level ? parent->level : level;
    if (slot->type == CAP_UNTYPED) {
        audit->bound[slot->depth + 1u] = slot->mark;
        if (slot->mark < range.start.v || slot->mark > range.end.v) {
            return wrong(audit, slot, "a watermark outside of its range", range.end.v, slot->mark);
        }
        return slot->level >= level ||
               wrong(audit, slot, "untyped memory below its node's level", level, slot->level);
    }
    if (slot->type == CAP_CNODE && ((const struct cnode *)slot->object)->level <= level) {
        return wrong(audit, slot, "a node not above what holds it", level + 1,
                     ((const struct cnode *)slot->object)->level);
    }
    return true;
}

static bool check_first(struct cap_audit *audit, const struct cap *slot, const struct cap *parent)
{
    audit->report->objects[slot->type]++;
    if (slot->object == NULL) {
        return wrong(audit, slot, "a capability without an object", 1, 0);
    }
    switch ((enum cap_type)slot->type) {
    case CAP_UNTYPED:
    case CAP_CNODE:
    case CAP_POOL:
        return check_memory(audit, slot, parent);
    case CAP_SPACE:
    case CAP_SNAPSHOT: {
        const struct pool *pool = ((const struct space *)slot->object)->payer.pool;
        const struct pool *above = parent->type == CAP_POOL ? parent->object : NULL;
        if (is_space(parent) && !(parent->flags & CAP_FIRST)) {
            above = ((const struct space *)parent->object)->payer.pool;
        }
        if (pool != above) {
            return wrong(audit, slot, "a space that is not of the pool above it", (uintptr_t)above,
                         (uintptr_t)pool);
        }
        break;
    }
    case CAP_CHANNEL:
    case CAP_PAGER:
        if (parent->type != CAP_POOL) {
            return wrong(audit, slot, "an object that comes from no pool", CAP_POOL, parent->type);
        }
        break;
    case CAP_NONE:
    case CAP_TYPES:
        return wrong(audit, slot, "an empty slot in the tree", 1, slot->type);
    }
    if ((slot->rights & CAP_MAY_GRANT) && !(parent->rights & CAP_MAY_GRANT)) {
        return wrong(audit, slot, "an object that may be granted, made through one that may not",
                     parent->rights, slot->rights);
    }
    return true;
}

static bool check_copy(struct cap_audit *audit, const struct cap *slot, const struct cap *parent)
{
    if (slot->type == CAP_UNTYPED || slot->type != parent->type || slot->object != parent->object) {
        return wrong(audit, slot, "a copy that does not name the object of its source",
                     (uintptr_t)parent->object, (uintptr_t)slot->object);
    }
    if ((slot->rights & ~(unsigned)parent->rights) != 0) {
        return wrong(audit, slot, "a copy with more rights than its source", parent->rights,
                     slot->rights);
    }
    return true;
}

/* --- The list --------------------------------------------------------------------------------- */

/* Whether `slot` is an occupied slot of its node, in the state of one that no call is using. */
static bool check_slot(struct cap_audit *audit, const struct cap *slot)
{
    const struct cnode *node = slot->node;

    if (node == NULL || slot <= (const struct cap *)(const void *)node ||
        CAP_INDEX(cap_name(slot)) >= node->fresh) {
        return wrong(audit, NULL, "a capability outside of its node", 0, (uintptr_t)slot);
    }
    if (slot->rights == 0 || (slot->flags & (CAP_CLOSING | CAP_RESERVED))) {
        return wrong(audit, slot, "flags of a call in flight, or no rights", 0, slot->flags);
    }
    return true;
}

/* Leaves the ancestors that are not those of a capability at `depth`. */
static bool leave_line(struct cap_audit *audit, unsigned depth)
{
    for (; audit->depth >= depth && audit->depth > 0; audit->depth--) {
        if (audit->open[audit->depth]) {
            return wrong(audit, audit->line[audit->depth], "a marker is not where it must be", 1,
                         0);
        }
    }
    return true;
}

static bool visit_cap(struct cap_audit *audit, const struct cap *slot)
{
    unsigned depth = slot->depth;

    audit->report->caps++;
    if (!check_slot(audit, slot)) {
        return false;
    }
    if (depth == 0 || depth > audit->depth + 1) {
        return wrong(audit, slot, "a depth without a parent", audit->depth + 1, depth);
    }
    if (!leave_line(audit, depth)) {
        return false;
    }
    if (((slot->flags & CAP_TAKEN) != 0) != (audit->opens > 0)) {
        return wrong(audit, slot, "taken or not, against the markers", audit->opens, slot->flags);
    }
    const struct cap *parent = audit->line[depth - 1];
    bool right = slot->flags & CAP_FIRST ? check_first(audit, slot, parent)
                                         : check_copy(audit, slot, parent);
    audit->line[depth] = slot;
    audit->depth = depth;
    audit->open[depth] = (slot->flags & CAP_ROOT) != 0;
    audit->opens += audit->open[depth] ? 1 : 0;
    return right;
}

static bool visit_marker(struct cap_audit *audit, const struct cap_link *link)
{
    const struct cap *root =
        (const struct cap *)(const void *)((const char *)link - offsetof(struct cap, marker));

    if (root->depth > audit->depth || audit->line[root->depth] != root ||
        !audit->open[root->depth]) {
        return wrong(audit, root, "a marker outside of what is revoked", 1, root->flags);
    }
    if ((root->flags & CAP_SWEPT) && cap_after(link)->depth > root->depth) {
        return wrong(audit, root, "a swept capability has descendants that are not", root->depth,
                     cap_after(link)->depth);
    }
    audit->open[root->depth] = false;
    audit->opens--;
    return true;
}

static bool visit_list(struct cap_audit *audit)
{
    const struct cap_link *head = &cap_tree.head.link;

    for (const struct cap_link *link = head->next; link != head; link = link->next) {
        if (link->next->previous != link || link->previous->next != link) {
            return wrong(audit, NULL, "links that do not meet", 0, (uintptr_t)link);
        }
        if (!(link_is_marker(link) ? visit_marker(audit, link)
                                   : visit_cap(audit, (const struct cap *)(const void *)link))) {
            return false;
        }
    }
    return leave_line(audit, 0);
}

/* --- The nodes -------------------------------------------------------------------------------- */

static bool check_node(struct cap_audit *audit, struct cnode *node)
{
    uint64_t occupied = 0;
    uint64_t worn = 0;
    uint64_t vacant = 0;

    for (uint32_t i = 0; i < node->fresh; i++) {
        const struct cap *slot = cnode_slot(node, i);
        if (slot->node != node || (slot->type == CAP_NONE && slot->flags != 0)) {
            return wrong(audit, slot, "a slot that is not its node's, or half empty", 0,
                         slot->flags);
        }
        occupied += slot->type != CAP_NONE;
        worn += slot->type == CAP_NONE && slot->generation == UINT32_MAX;
    }
    for (const struct cap *slot = node->free; slot != NULL && vacant <= node->fresh;
         slot = (const struct cap *)(const void *)slot->link.next) {
        vacant++;
    }
    if (occupied + worn != node->used || node->used + vacant != node->fresh) {
        return wrong(audit, NULL, "a node that miscounts its slots", occupied + worn, node->used);
    }
    audit->occupied += occupied;
    return true;
}

enum cleave_status cap_audit(struct mm_ctx *ctx, struct cap_report *report)
{
    struct cap_audit audit = {.report = report};

    (void)ctx;
    *report = (struct cap_report){0};
    audit.line[0] = &cap_tree.head;
    audit.bound[1] = machine.frames;
    if (!visit_list(&audit) || !check_node(&audit, cap_tree.root)) {
        return CLEAVE_OK;
    }
    for (const struct cap *slot = cap_after(&cap_tree.head.link); slot != &cap_tree.head;
         slot = cap_after(&slot->link)) {
        if (slot->type == CAP_CNODE && (slot->flags & CAP_FIRST) &&
            !check_node(&audit, slot->object)) {
            return CLEAVE_OK;
        }
    }
    if (audit.occupied != report->caps) {
        (void)wrong(&audit, NULL, "a capability that is not in the tree", report->caps,
                    audit.occupied);
    }
    return CLEAVE_OK;
}
