/* SPDX-License-Identifier: BSD-2-Clause */
/* When a fault asks for collapse; space_collapse() itself is declared in fault.h. */
#ifndef MM_COLLAPSE_H
#define MM_COLLAPSE_H

#include "walk.h"

/* A copy was put into the table that `walk` stands in (locked): notes its block in the space's
 * collapse_hint when its private parts have just reached collapse_at, or are a grain beyond. */
void collapse_note(struct space *space, const struct walk *walk);
/* Collapses the noted block, if it can be. No lock is held. */
void collapse_hinted(struct mm_ctx *ctx, struct space *space);

#endif
