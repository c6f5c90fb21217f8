/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames filled outside the locks; see prepare.h. Each belongs to one call on one CPU. */
#include "prepare.h"

enum cleave_status prepared_add(struct mm_ctx *ctx, struct prepared *p, gfn_t at, unsigned level,
                                pte_t from, pfn_t to)
{
    MM_CHECK(p->count < PREPARED_MAX);
    enum cleave_status status = from != 0 ? frame_get(ctx, pte_pfn(from), level) : CLEAVE_OK;
    if (status != CLEAVE_OK) {
        frame_put(ctx, to, level);
        return status;
    }
    p->item[p->count++] = (struct prepared_item){at, level, from, to};
    return CLEAVE_OK;
}

void prepared_fill(struct mm_ctx *ctx, struct prepared *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        const struct prepared_item *item = &p->item[i];
        port_point(ctx, POINT_COPY, item->at.v, item->level);
        if (item->from != 0) {
            port_copy_pages(frame_address(item->to), frame_address(pte_pfn(item->from)),
                            level_pages(item->level));
        } else {
            port_zero_pages(frame_address(item->to), level_pages(item->level));
        }
        port_point(ctx, POINT_COPIED, item->at.v, item->level);
    }
}

void prepared_drop(struct mm_ctx *ctx, struct prepared *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        const struct prepared_item *item = &p->item[i];
        if (item->from != 0) {
            frame_put(ctx, pte_pfn(item->from), item->level);
        }
        if (item->to.v != 0 && item->level == 0 && p->payer != NULL) {
            pool_return(ctx, p->payer, item->to);
        } else if (item->to.v != 0) {
            frame_put(ctx, item->to, item->level);
        }
    }
    p->count = 0;
}
