/* SPDX-License-Identifier: BSD-2-Clause */
/* Rights over domains of others; see grant.h. */
#include "grant.h"

struct grant {
    struct domain *over; /* with a reference; null: this one is free */
    uint64_t rights;
};
#define GRANTS (PAGE_SIZE / sizeof(struct grant))

struct grants {
    struct grant grant[GRANTS];
};

/* The frame; made where there is none, which two callers may try at the same time. */
static enum cleave_status have_frame(struct mm_ctx *ctx, struct domain *domain)
{
    struct grants *none = NULL;
    pfn_t frame;
    if (__atomic_load_n(&domain->grants, __ATOMIC_ACQUIRE) != NULL) {
        return CLEAVE_OK;
    }
    enum cleave_status status = object_alloc(ctx, &domain->space->payer, &frame);
    if (status == CLEAVE_OK &&
        !__atomic_compare_exchange_n(&domain->grants, &none, frame_address(frame), false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        object_free(ctx, frame);
    }
    return status;
}

/* The grant over that domain, or one that is free; null. The lock is held. */
static struct grant *find(struct grants *grants, const struct domain *over)
{
    struct grant *free = NULL;
    for (unsigned i = 0; i < GRANTS; i++) {
        struct grant *grant = &grants->grant[i];
        if (grant->over == over) {
            return grant;
        }
        free = free == NULL && grant->over == NULL ? grant : free;
    }
    return free;
}

/* Of domains that are gone. Returns one of them, to be put when the lock is free. */
static struct domain *take_dead(struct grants *grants)
{
    for (unsigned i = 0; i < GRANTS; i++) {
        struct domain *over = grants->grant[i].over;
        if (over != NULL && __atomic_load_n(&over->going, __ATOMIC_RELAXED)) {
            grants->grant[i] = (struct grant){NULL, 0};
            return over;
        }
    }
    return NULL;
}

enum cleave_status grant_set(struct mm_ctx *ctx, struct domain *to, struct domain *over,
                             uint32_t rights)
{
    struct domain *drop = NULL;
    enum cleave_status status = rights != 0 ? have_frame(ctx, to) : CLEAVE_OK;
    if (status != CLEAVE_OK || to->grants == NULL) {
        return status; /* the second: there is nothing to take back */
    }
    struct domain *kept = rights != 0 ? domain_get(over->id) : NULL;
    if (rights != 0 && kept != over) {
        domain_put(ctx, kept);
        return mm_fail(ctx, CLEAVE_DYING, "over", over->id, 1, 0);
    }
    klock_take(&to->grants_lock);
    drop = take_dead(to->grants);
    struct grant *grant = find(to->grants, over);
    if (grant == NULL) {
        status =
            rights != 0 ? mm_fail(ctx, CLEAVE_COUNT, "grants", GRANTS + 1, 0, GRANTS) : CLEAVE_OK;
    } else if (grant->over == over || rights != 0) {
        struct domain *before = grant->over; /* its reference goes, or stands for the new one */
        *grant = (struct grant){rights != 0 ? over : NULL, rights};
        kept = before != NULL ? before : NULL;
    }
    klock_release(&to->grants_lock);
    domain_put(ctx, kept);
    domain_put(ctx, drop);
    return status;
}

uint32_t grant_rights(struct domain *domain, const struct domain *over)
{
    uint32_t rights = 0;
    if (__atomic_load_n(&domain->grants, __ATOMIC_ACQUIRE) == NULL) {
        return 0;
    }
    klock_take(&domain->grants_lock);
    const struct grant *grant = find(domain->grants, over);
    if (grant != NULL && grant->over == over) {
        rights = (uint32_t)grant->rights;
    }
    klock_release(&domain->grants_lock);
    return rights;
}

void grants_free(struct mm_ctx *ctx, struct domain *domain)
{
    struct grants *grants = domain->grants;
    for (unsigned i = 0; grants != NULL && i < GRANTS; i++) {
        domain_put(ctx, grants->grant[i].over);
    }
    if (grants != NULL) {
        domain->grants = NULL;
        object_free(ctx, object_frame(grants));
    }
}
