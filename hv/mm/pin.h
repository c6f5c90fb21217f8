/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pins (DMA) and foreign maps. Each is recorded as an attachment of the space whose pages they are,
 * holds references on the frames it found, and does not make them shared for its own space. Records
 * of pins lie in one frame of the space's pool, those of foreign maps as foreign.h says; they are
 * read under the space's lock and changed under its writer side, those of foreign maps with
 * RANK_FOREIGN (one lock, taken first by whatever touches two spaces) as well.
 */
#ifndef MM_PIN_H
#define MM_PIN_H

#include "space.h"

enum attachment_kind { ATTACH_NONE = 0, ATTACH_PIN_READ, ATTACH_PIN_WRITE, ATTACH_FOREIGN };

/*
 * order 1 or 2: one reference on the block at `frame`; `pages` of it are meant, from `at`.
 * order 0: one reference on each of `pages` consecutive frames from `frame`, which is that of `at`.
 */
struct attachment {
    uint8_t kind;     /* enum attachment_kind */
    uint8_t order;    /* order of the references held */
    uint8_t written;  /* ATTACH_FOREIGN: has been written through; a pin from then on */
    uint8_t detached; /* ATTACH_FOREIGN: the owner has unmapped the page; the map keeps its frame */
    uint32_t id;      /* the holder's handle, named by CLEAVE_BUSY */
    pfn_t frame;      /* block or first frame that is referenced */
    uint32_t pages;   /* 4 KiB pages of it that are meant, from `at` */
    gfn_t at;         /* first guest page in the owner's space */
    struct space *mapper; /* ATTACH_FOREIGN */
    gfn_t mapper_at;
};

/* Pages [at, at + pages). */
static inline struct gfn_range attachment_range(const struct attachment *a)
{
    return (struct gfn_range){a->at, gfn(a->at.v + a->pages)};
}
/* Frame of page `at`, which lies in the attachment's range. */
static inline pfn_t attachment_frame(const struct attachment *a, gfn_t at)
{
    uint64_t first = a->at.v & (level_pages(a->order) - 1);
    return pfn_add(a->frame, first + (at.v - a->at.v));
}
/* True when a fork must copy its pages: the device or the mapper may write to them at any time, or
 * must go on seeing what the space writes. */
static inline bool attachment_pins(const struct attachment *a)
{
    return a->kind == ATTACH_PIN_READ || a->kind == ATTACH_PIN_WRITE ||
           (a->kind == ATTACH_FOREIGN && a->written && !a->detached);
}

/*
 * Pins [at, at + size) of `space` for a device: the frames stay where they are until unpinned, and
 * forks get copies of them. Copy-on-write is broken first, for reading too, so that the device goes
 * on seeing what the space writes; with `write` by the path of a guest's write, which may notify.
 * One attachment for each leaf, or run of 4 KiB leaves over consecutive frames. CLEAVE_FAULT where
 * there is no memory or `write` is not allowed, CLEAVE_POLICY where it is a device's or another
 * space's, CLEAVE_COUNT when the space has no attachment left or the range has more than
 * PIN_MAX_WORDS words of the region tree, CLEAVE_WAIT when a page is still to be loaded or a
 * subscriber to be heard: call again later. All or nothing. `*id` names it for space_unpin().
 * Preemptible while it copies.
 */
#define PIN_MAX_WORDS 65536u
enum cleave_status space_pin(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size,
                             bool write, uint32_t *id) MUST_CHECK;
/* CLEAVE_INVALID for an id that names no pin of `space`. Works on a dying space. */
enum cleave_status space_unpin(struct mm_ctx *ctx, struct space *space, uint32_t id) MUST_CHECK;
/* Host frame of a pinned page (what a device is programmed with). CLEAVE_INVALID for an id that
 * names no pin, CLEAVE_NOT_MAPPED for a page that it does not pin. */
enum cleave_status space_pinned_frame(struct mm_ctx *ctx, struct space *space, uint32_t id,
                                      gpa_t at, pfn_t *out) MUST_CHECK;

/*
 * Maps page `at` of `owner` into `mapper` at `to`: read-only at first, copying nothing; a write
 * through it breaks the copy in `owner`, both see the new frame, and it is a pin from then on. When
 * `owner` breaks the copy itself, the map follows. `to` must be REGION_NONE. When the owner unmaps
 * the page, the map keeps the frame, for reading or as it was written through. CLEAVE_FAULT (no
 * memory at `at`), CLEAVE_EXISTS, CLEAVE_COUNT (FOREIGN_MAX maps of the owner, or FOREIGN_PAGE_MAX
 * of the page), CLEAVE_INVALID (one space is both), CLEAVE_WAIT (the page is still to be loaded).
 * The record is charged to the mapper, the owner's index to the owner; CLEAVE_NO_MEMORY,
 * CLEAVE_QUOTA.
 */
#define FOREIGN_MAX (UINT32_C(1) << 18)
#define FOREIGN_PAGE_MAX 128u
enum cleave_status foreign_map(struct mm_ctx *ctx, struct space *owner, gpa_t at,
                               struct space *mapper, gpa_t to) MUST_CHECK;
/* CLEAVE_NOT_MAPPED when `to` is no foreign map. */
enum cleave_status foreign_unmap(struct mm_ctx *ctx, struct space *mapper, gpa_t to) MUST_CHECK;

/* --- For fault.c ------------------------------------------------------------------------------ */

/*
 * Attachments of `space` whose reference lies on the chain of the frame at `f` as `at` maps it:
 * what frame_is_exclusive() is given as `own`. Where a foreign map of page `at` still shows another
 * frame (a copy was broken and foreign_follow() is not done) it is ATTACHMENTS_UNSETTLED, with
 * which no frame is exclusive, so that nobody writes before the map has followed. The space's lock
 * is held.
 */
#define ATTACHMENTS_UNSETTLED UINT32_MAX
uint64_t attachments_at(struct space *space, gfn_t at, pfn_t f);
/* Only the last: does a foreign map of the page show another frame? */
bool attachments_unsettled(struct space *space, gfn_t at, pfn_t f);
/*
 * Page `at` of `owner` may have got a new frame (installed without the write bit): every foreign
 * map of it that shows another frame is made to show the owner's, read-only, and flushed. No lock
 * is held. To be called, where `owner->foreign_count` is not 0, before such a page turns writable.
 */
void foreign_follow(struct mm_ctx *ctx, struct space *owner, gfn_t at);

/*
 * A write in `mapper` met the PTE_FOREIGN leaf of page `at`. Breaks the copy in the owner as a
 * write of the owner's would (and tells its subscriber), after which both show the same frame and
 * the leaf may write. CLEAVE_OK: execute the access again; CLEAVE_WAIT as for a fault; CLEAVE_FAULT
 * where the owner's region does not allow it, or where the owner has given up the page, which was
 * not written through before; CLEAVE_DENIED, CLEAVE_NO_MEMORY, CLEAVE_QUOTA. No lock is held.
 */
enum cleave_status foreign_write(struct mm_ctx *ctx, struct space *mapper, gfn_t at,
                                 struct vcpu_wait *wait) MUST_CHECK;

/* Pages of `range` of `owner` were armed or lost a right: foreign maps of them lose their write
 * bit, flushed; the next write through them asks again. To be called before the operation returns,
 * with no lock held. */
void foreign_protect(struct mm_ctx *ctx, struct space *owner, struct gfn_range range);
/* Maps of all of the owner's pages lose their write bit, flushed, and are no pins until they are
 * written through again: a snapshot that is made now shares the pages. With no lock held. */
void foreign_unwrite(struct mm_ctx *ctx, struct space *owner);

/* --- For fork.c, space.c and audit.c ---------------------------------------------------------- */

/* The same for references of `order` and above alone: on the chain of a block at `f`. */
uint64_t attachments_above(struct space *space, gfn_t at, pfn_t f, unsigned order);

/* Pages that are pinned (attachment_pins()). What they are settled for (fork, move) is not stopped,
 * and refused for more than PINNED_MAX_PAGES of them. */
uint64_t attachments_pages(struct space *space);
#define PINNED_MAX_PAGES 16384u

/* First attachment that meets [range), or null; for iteration pass the previous one. The space's
 * lock is held. */
struct attachment *attachment_next(struct space *space, struct attachment *previous,
                                   struct gfn_range range);
/* The same for those that pin (attachment_pins()) alone. */
struct attachment *attachment_next_pinning(struct space *space, struct attachment *previous,
                                           struct gfn_range range);

/*
 * Before a fork: makes the path to every pinned page exclusive and its leaf a 4 KiB leaf, and the
 * references of pins exact: those on a block are handed to exactly the parts that are pinned.
 * Leaves that other spaces map lose their write bit. Pages of shared regions stay as they are.
 * The space's lock is held for writing. `batch` may be finished on the way; the caller finishes it
 * at the end. CLEAVE_COUNT for more than PINNED_MAX_PAGES. On failure what has been split stays so,
 * which no space can tell.
 */
enum cleave_status attachments_split(struct mm_ctx *ctx, struct space *space,
                                     struct flush_batch *batch) MUST_CHECK;

/* The range is being unmapped from its space, or gets other frames: foreign maps of its pages no
 * longer follow. The space's lock is held for writing. */
void attachments_detach(struct space *space, struct gfn_range range);

/*
 * The space is dying and no longer runs: drops its foreign maps of others, takes its own pages back
 * from their mappers, flushed, and frees the records. CLEAVE_AGAIN when the budget ran out.
 * CLEAVE_BUSY (value: the id) while a DMA pin is held. No lock is held.
 */
enum cleave_status attachments_destroy(struct mm_ctx *ctx, struct space *space) MUST_CHECK;

/* Drops all foreign maps that `mapper` has of others: it is dying, or goes back to its base. Their
 * ranges keep REGION_FOREIGN. CLEAVE_AGAIN when the budget ran out. No lock is held. */
enum cleave_status foreign_release_mapper(struct mm_ctx *ctx, struct space *mapper) MUST_CHECK;

#endif
