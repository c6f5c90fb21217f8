/* SPDX-License-Identifier: BSD-2-Clause */
/* Foreign maps of a space that goes: of its pages in others, and of others' pages in it. One at a
 * time, under RANK_FOREIGN and both spaces' locks. */
#include "change.h"
#include "foreign.h"
#include "table.h"

/* Moves op_walk to the next foreign page that has its leaf; `*found` is false where there is none.
 * CLEAVE_AGAIN: out of budget. */
static enum cleave_status next_foreign(struct mm_ctx *ctx, struct space *mapper, bool *found)
{
    gfn_t at = mapper->op_walk;
    enum cleave_status status = CLEAVE_OK;

    *found = false;
    read_lock(ctx, &mapper->lock, RANK_SPACE);
    while (at.v < GUEST_PAGES) {
        struct gfn_range extent;
        struct region region;
        unsigned level;
        if (!mm_spend(ctx, 1)) {
            status = CLEAVE_AGAIN;
            break;
        }
        if (!region_find(mapper->regions, at, gfn(GUEST_PAGES), REGION_HAS_FORK, &extent,
                         &region)) {
            at = gfn(GUEST_PAGES);
        } else if (region.policy != REGION_FOREIGN || foreign_is_window(&region)) {
            at = extent.end;
        } else {
            at = extent.start;
            *found = pte_is_leaf(space_entry(ctx, mapper, at, &level), 0);
            if (*found) {
                break;
            }
            at.v++;
        }
    }
    mapper->op_walk = at;
    read_unlock(ctx, &mapper->lock, RANK_SPACE);
    return status;
}

enum cleave_status foreign_release_mapper(struct mm_ctx *ctx, struct space *mapper)
{
    enum cleave_status status;
    bool found;

    do {
        foreign_begin(ctx);
        status = next_foreign(ctx, mapper, &found);
        if (found) {
            struct foreign_record *record = foreign_record_find(mapper, mapper->op_walk);
            MM_CHECK(record != NULL);
            struct space *owner = record->owner;
            foreign_lock_two(ctx, owner, mapper);
            foreign_drop(ctx, record);
            foreign_unlock_two(ctx, owner, mapper);
        }
        foreign_end(ctx);
    } while (found);
    if (status == CLEAVE_AGAIN) {
        port_point(ctx, POINT_PREEMPT, mapper->id, OP_DESTROY);
    }
    return status;
}

/* Takes one page of a dying owner back from its mapper; false when there is none. The mapper keeps
 * an empty foreign region where it has no memory to change that. */
static bool take_back(struct mm_ctx *ctx, struct space *owner)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};
    const struct region none = {.policy = REGION_NONE};

    foreign_begin(ctx);
    struct foreign_record *record = foreign_record_next(owner, NULL, everything, false);
    if (record != NULL) {
        struct space *mapper = record->a.mapper;
        struct gfn_range range = foreign_page(record->a.mapper_at);
        foreign_lock_two(ctx, owner, mapper);
        foreign_drop(ctx, record);
        if (change_building(mapper)) {
            (void)!region_set(ctx, &mapper->payer, &mapper->op_regions, range, &none);
        }
        (void)!region_set(ctx, &mapper->payer, &mapper->regions, range, &none);
        foreign_unlock_two(ctx, owner, mapper);
    }
    foreign_end(ctx);
    return record != NULL;
}

enum cleave_status attachments_destroy(struct mm_ctx *ctx, struct space *space)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};
    enum cleave_status status = foreign_release_mapper(ctx, space);
    if (status != CLEAVE_OK) {
        return status;
    }
    while (take_back(ctx, space)) {
        if (!mm_spend(ctx, 1)) {
            port_point(ctx, POINT_PREEMPT, space->id, OP_DESTROY);
            return CLEAVE_AGAIN;
        }
    }
    write_lock(ctx, &space->lock, RANK_SPACE);
    struct attachment *a = attachment_next(space, NULL, everything);
    if (a != NULL) {
        status = mm_fail(ctx, CLEAVE_BUSY, "space", a->id, 1, 0);
    }
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}
