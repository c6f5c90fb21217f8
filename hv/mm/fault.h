/* SPDX-License-Identifier: BSD-2-Clause */
/* Nested page faults: reads, writes and fetches that the tables do not allow. */
#ifndef MM_FAULT_H
#define MM_FAULT_H

#include "space.h"

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC };

/*
 * Resolves the access of a vcpu of `space` to guest-physical address `at` (any byte address).
 * CLEAVE_OK: execute the access again. CLEAVE_WAIT: `wait` is queued (no frames, a verdict, a
 * load); execute again after port_wake(). CLEAVE_FAULT: there is no memory, or the region lacks the
 * right; CLEAVE_DENIED: the subscriber said no; CLEAVE_IO: the pager could not load.
 * CLEAVE_NO_MEMORY instead of waiting when `wait` is null or says so, and for a write to a foreign
 * page for which its owner's quota, or another pool, has no memory; else CLEAVE_QUOTA always.
 * CLEAVE_DYING, CLEAVE_FROZEN. No lock is held; the caller's CPU may run the space. A bounded
 * amount of work: at most one table per level copied, one leaf split per level, one grain or one 2
 * MiB block copied.
 */
enum cleave_status space_fault(struct mm_ctx *ctx, struct space *space, gpa_t at,
                               enum access access, struct vcpu_wait *wait) MUST_CHECK;

/* Breaks copy-on-write for every page of a range, as if each were written, without writing. */
enum cleave_status space_make_exclusive(struct mm_ctx *ctx, struct space *space,
                                        struct gfn_range range, struct vcpu_wait *wait) MUST_CHECK;

/*
 * Collapse: the 2 MiB block of guest memory at `at` (a table of 4 KiB leaves that is exclusive) is
 * completed in the run its copies went to, or in the block it came from, and becomes one 2 MiB leaf
 * again; a table of 2 MiB leaves that are the parts of one 1 GiB block becomes one 1 GiB leaf.
 * `level` is 1 or 2. Preemptible. CLEAVE_OK: done. CLEAVE_NOT_MAPPED: nothing to collapse there (no
 * table, holes). CLEAVE_BUSY: armed, pinned, shared, parked or raced with a writer; nothing changed
 * that a guest could see. CLEAVE_NO_MEMORY: no block free to complete it in.
 */
enum cleave_status space_collapse(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                  unsigned level) MUST_CHECK;

#endif
