/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers of domains: which are taken. Plain data; the caller holds a lock. */
#ifndef KERNEL_IDS_H
#define KERNEL_IDS_H

#include <stdbool.h>
#include <stdint.h>

#define DOMAIN_IDS                                                                                 \
    0x7fefu /* ids 1..DOMAIN_IDS - 1 are given; Xen's reserved ones begin at 0x7ff0 */
#define DOMAIN_ID_MAX DOMAIN_IDS /* only ids_take_one() gives it */
#define IDS_WORDS ((DOMAIN_ID_MAX + 64) / 64)
#define IDS_ROW_MAX 64u

struct ids {
    uint32_t last; /* given last: a number comes again as late as can be */
    uint64_t taken[IDS_WORDS];
};

/* Takes 1 to IDS_ROW_MAX free numbers in a row; the first of them, 0 when there are none. */
uint32_t ids_take(struct ids *ids, uint32_t count);
/* Takes that number; false when it is taken. */
bool ids_take_one(struct ids *ids, uint32_t id);
void ids_drop(struct ids *ids, uint32_t id);
/* The next number above `id` that is taken; 0: none is. */
uint32_t ids_next(const struct ids *ids, uint32_t id);

#endif
