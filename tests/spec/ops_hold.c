/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations that hold pages of a space from outside: pins, foreign maps. */
#include "ops.h"

#include <inttypes.h>

uint64_t ops_pinned_pages(const struct world *w, unsigned s)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < REF_PINS; i++) {
        const struct ref_pin *pin = &w->ref->pin[i];
        pages += pin->live && pin->space == s ? pin->end - pin->start : 0;
    }
    return pages;
}

static void op_none(struct world *w) { (void)w; }

const struct spec_op ops_hold[] = {{"none", 0, false, op_none}};
const unsigned ops_hold_count = sizeof(ops_hold) / sizeof(ops_hold[0]);
