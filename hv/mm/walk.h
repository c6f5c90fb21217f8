/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one walker over nested page tables of either format.
 *
 *   root (level 3)        one per space, never shared
 *     | entry -> table (level 2)   counted: `count` entries point to it
 *     |            | entry -> table (level 1) or a 1 GiB leaf
 *     |            |            | entry -> table (level 0) or a 2 MiB leaf
 *     |            |            |            | 4 KiB leaf
 *
 * A table is exclusive when its count is one and its parent is; exclusive tables are changed in
 * place under their lock, shared ones never but for the three changes that hv/mm/ allows there: a
 * paged entry becomes present, a write bit is cleared, an accessed or dirty bit is set.
 *
 * A walk holds the lock of the deepest exclusive table it went through. That keeps every entry of
 * that table, and so everything beneath a shared entry of it, from being dropped.
 */
#ifndef MM_WALK_H
#define MM_WALK_H

#include "space.h"

struct walk {
    struct space *space;
    gfn_t at;
    unsigned level;  /* of `entry` */
    pfn_t table;     /* holds `entry` */
    pte_t *slot;     /* where `entry` was read */
    pte_t entry;     /* read once */
    pfn_t locked;    /* deepest exclusive table: its lock is held */
    bool exclusive;  /* `table` is exclusive (then table == locked) */
    bool given;      /* a table entry on the way got its write bit back */
    unsigned parked; /* 1 + the level of the highest parked entry on the way, `entry` included; 0:
                        there is none */
    unsigned rights; /* AND over the levels above and of `entry` where it is a leaf or parked: no
                        READ where anything is parked */
};

void table_lock(struct mm_ctx *ctx, pfn_t table);
void table_unlock(struct mm_ctx *ctx, pfn_t table);

static inline pte_t *table_slots(pfn_t table) { return frame_address(table); }

/* Walks to the entry at `stop` level, or the first above it that is no table; through parked tables
 * as through others. Takes the root's lock and hands locks down; changes nothing. The space's lock
 * is held (either side). */
void walk_find(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned stop, struct walk *walk);

/* What walk_exclusive() does on its way beside making tables exclusive. */
enum {
    WALK_MAKE = 1, /* make missing tables (only where a hole is) */
    WALK_WRITE =
        2, /* give table entries their write bit back; restricted entries beneath lose theirs */
    WALK_EXEC = 4 /* the same for execute */
};

/* The same, but makes every table on the way exclusive: copies shared ones. A parked entry above
 * `stop` that refers to a table becomes present, without write and execute, once the entries
 * beneath it that this space may not read are parked; `parked` tells of `entry` alone. Tables that
 * are replaced are put into `batch`, which has room for ROOT_LEVEL more; the caller finishes it
 * after walk_end(). `payer` pays for tables. CLEAVE_NO_MEMORY, CLEAVE_QUOTA, CLEAVE_OVERFLOW: the
 * walk is released; tables made exclusive so far stay so, which no space can tell, and the batch
 * must be finished. */
enum cleave_status walk_exclusive(struct mm_ctx *ctx, struct space *space, struct payer *payer,
                                  gfn_t at, unsigned stop, unsigned flags,
                                  struct flush_batch *batch, struct walk *walk) MUST_CHECK;

/* One step more, into the table of its own with which the walk's entry was just replaced. Gives the
 * entry no rights. */
void walk_into(struct mm_ctx *ctx, struct walk *walk);

/* Releases the lock that a walk holds. */
void walk_end(struct mm_ctx *ctx, struct walk *walk);

#endif
