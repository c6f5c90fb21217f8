/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shadow_op of domctl: which pages a domain wrote. A snapshot of its memory says how that was when
 * it was last asked; what has another frame now was written, or got its memory, since. What cleans
 * makes another snapshot and compares the two, while the domain runs on. All under its `busy`.
 */
#include "control.h"

#include <xen/errno.h>
#include <xen/xen.h>

#include "fork.h"
#include "pin.h"

#define PAGES_END (UINT64_C(1) << (GUEST_BITS - PAGE_SHIFT))
#define PART 4096u /* pages whose bits are written at a time */
#define RANGES 64u

/* Until a snapshot goes, the domain pays for its pages and for what took their place; and there are
 * two of them while what was written is looked for. */
#define TIMES 3u

enum cleave_status xen_set_limit(struct mm_ctx *ctx, struct domain *domain, uint64_t frames)
{
    const struct payer *payer = &domain->space->payer;
    uint64_t limit = frames;
    if (domain->log.clean != NULL) {
        domain->log.limit = frames;
        limit = frames < UINT64_MAX / TIMES ? frames * TIMES : UINT64_MAX;
    }
    return account_set_limit(ctx, payer->pool, payer->account, limit);
}

/* --- Snapshots -------------------------------------------------------------------------------- */

static enum cleave_status end_old(struct mm_ctx *ctx, struct domain_log *log)
{
    enum cleave_status status = log->old != NULL ? space_destroy(ctx, log->old) : CLEAVE_OK;
    if (status == CLEAVE_OK) {
        log->old = NULL;
    }
    return status;
}

/* Memory that is not the domain's alone, or that a snapshot does not have, is written unseen. */
static bool can_be_logged(struct mm_ctx *ctx, struct space *space)
{
    read_lock(ctx, &space->lock, RANK_SPACE);
    unsigned summary = region_summary_all(space->regions);
    read_unlock(ctx, &space->lock, RANK_SPACE);
    return (summary & (REGION_HAS_FORK | REGION_HAS_SHARED)) == 0;
}

static enum cleave_status freeze(struct mm_ctx *ctx, struct domain *domain, struct space **out)
{
    enum cleave_status status = CLEAVE_BUSY;
    domain_stop(ctx, domain, NULL);
    if (!domain->resetting) {
        foreign_unwrite(ctx, domain->space);
        status = space_snapshot(ctx, domain->space, UINT64_MAX, out);
    }
    domain_resume(domain);
    return status;
}

static enum cleave_status enable(struct xen_call *call, struct domain *domain)
{
    struct domain_log *log = &domain->log;
    struct space *space = domain->space;
    if (log->clean != NULL || domain->snapshot || !can_be_logged(call->ctx, space)) {
        return CLEAVE_INVALID;
    }
    enum cleave_status status = end_old(call->ctx, log);
    if (status != CLEAVE_OK) {
        return status;
    }
    space_copy_by_page(call->ctx, space, true);
    status = freeze(call->ctx, domain, &log->clean);
    if (status != CLEAVE_OK) {
        log->clean = NULL;
        space_copy_by_page(call->ctx, space, false);
        return status;
    }
    domain->blank = 0;
    return xen_set_limit(call->ctx, domain,
                         account_of(space->payer.pool, space->payer.account)->limit);
}

/* CLEAVE_AGAIN until all is given back. */
static enum cleave_status disable(struct mm_ctx *ctx, struct domain *domain)
{
    struct domain_log *log = &domain->log;
    enum cleave_status status = end_old(ctx, log);
    if (status == CLEAVE_OK && log->next != NULL) {
        log->old = log->next;
        log->next = NULL;
        log->serial++;
        status = end_old(ctx, log);
    }
    if (status == CLEAVE_OK && log->clean != NULL) {
        log->old = log->clean;
        log->clean = NULL;
        log->serial++;
        status = end_old(ctx, log);
    }
    return status;
}

enum cleave_status xen_log_end(struct mm_ctx *ctx, struct domain *domain)
{
    return disable(ctx, domain);
}

static enum cleave_status turn_off(struct mm_ctx *ctx, struct domain *domain)
{
    uint64_t limit = domain->log.limit;
    bool on = domain->log.clean != NULL;
    enum cleave_status status = disable(ctx, domain);
    if (on && domain->log.clean == NULL) {
        space_copy_by_page(ctx, domain->space, false);
        enum cleave_status set = xen_set_limit(ctx, domain, limit);
        status = status == CLEAVE_OK ? set : status;
    }
    return status;
}

/* --- What was written ------------------------------------------------------------------------- */

static void set_bits(uint8_t *bits, uint64_t first, uint64_t end)
{
    for (; first < end; first++) {
        bits[first / 8] |= (uint8_t)(1u << first % 8);
    }
}

/* The pages from `log->at` on: up to `end`, or as many as the budget lets be looked at where they
 * need no bits. The bits of a part are had in one call. */
static enum cleave_status look(struct xen_call *call, struct domain *domain, uint64_t end,
                               uint8_t *bits, uint64_t *at, uint64_t *dirty)
{
    struct domain_log *log = &domain->log;
    struct space *now = log->next != NULL ? log->next : domain->space;
    struct gfn_range found[RANGES];
    struct diff diff = {.from = gfn(log->at), .end = gfn(end), .found = found, .room = RANGES};
    enum cleave_status status;
    bool spent = false;
    do {
        status = space_diff(call->ctx, log->clean, now, &diff);
        for (unsigned i = 0; i < diff.count; i++) {
            *dirty += found[i].end.v - found[i].start.v;
            if (bits != NULL) {
                set_bits(bits, found[i].start.v - log->at, found[i].end.v - log->at);
            }
        }
        spent |= call->ctx->budget == 0;
        call->ctx->budget = spent && bits != NULL ? PART : call->ctx->budget;
    } while (bits != NULL && status == CLEAVE_AGAIN);
    call->ctx->budget = spent ? 0 : call->ctx->budget;
    *at = diff.from.v;
    return status;
}

/* A part of the bitmap, or what lies behind it, which is only counted. */
static int64_t tell(struct xen_call *call, struct domain *domain,
                    const struct xen_domctl_shadow_op *op)
{
    struct domain_log *log = &domain->log;
    uint8_t bits[PART / 8] = {0};
    uint64_t to = (uint64_t)op->dirty_bitmap.p, at = log->at, dirty = 0;
    bool with_bits = to != 0 && at < op->pages;
    uint64_t end = with_bits && at + PART < PAGES_END ? at + PART : PAGES_END;
    enum cleave_status status = look(call, domain, end, with_bits ? bits : NULL, &at, &dirty);
    if (status != CLEAVE_OK && status != CLEAVE_AGAIN) {
        return xen_error(status);
    }
    int64_t result = 0;
    if (with_bits) {
        uint64_t pages = op->pages - log->at < PART ? op->pages - log->at : PART;
        for (uint64_t i = pages; i % 8 != 0; i++) {
            bits[i / 8] &= (uint8_t) ~(1u << i % 8);
        }
        result = xen_put(call, to + log->at / 8, bits, (pages + 7) / 8);
        (void)mm_spend(call->ctx, PART / 256);
    }
    if (result == 0) {
        log->at = at;
        log->dirty += dirty;
    }
    return result;
}

/* A call that asks what was written, or that cleans too, begins. What another left is given up. */
static int64_t begin(struct xen_call *call, struct domain *domain, bool clean)
{
    struct domain_log *log = &domain->log;
    enum cleave_status status = end_old(call->ctx, log);
    if (status == CLEAVE_OK && log->next != NULL) {
        log->old = log->next;
        log->next = NULL;
        status = end_old(call->ctx, log);
    }
    log->serial++;
    if (status == CLEAVE_OK && clean) {
        status = can_be_logged(call->ctx, domain->space) ? freeze(call->ctx, domain, &log->next)
                                                         : CLEAVE_INVALID;
        log->next = status == CLEAVE_OK ? log->next : NULL;
    }
    log->at = log->dirty = 0;
    return xen_error(status);
}

/* From where it is to the end, or for as long as one call may take. */
static int64_t go_on(struct xen_call *call, struct domain *domain, struct xen_domctl_shadow_op *op)
{
    struct domain_log *log = &domain->log;
    int64_t result = 0;
    while (result == 0 && log->at < PAGES_END) {
        result = call->ctx->budget == 0 ? XEN_AGAIN : tell(call, domain, op);
    }
    if (result == 0 && log->next != NULL) {
        log->old = log->clean;
        log->clean = log->next;
        log->next = NULL;
    }
    if (result == 0) {
        result = xen_error(end_old(call->ctx, log));
    }
    if (result == 0) {
        uint32_t dirty = log->dirty < UINT32_MAX ? (uint32_t)log->dirty : UINT32_MAX;
        op->stats = (struct xen_domctl_shadow_op_stats){dirty, dirty};
        log->serial++;
    } else if (!xen_repeats(result) && log->next != NULL) {
        log->old = log->next; /* nothing was cleaned */
        log->next = NULL;
    }
    return result;
}

static int64_t ask(struct xen_call *call, struct domain *domain, struct xen_domctl_shadow_op *op,
                   bool again)
{
    struct domain_log *log = &domain->log;
    int64_t result = 0;
    if (log->clean == NULL || (op->mode & ~(uint32_t)XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL) != 0) {
        return -XEN_EINVAL;
    }
    if (again && call->argument[1] != log->serial) {
        return -XEN_EBUSY; /* somebody else asks meanwhile */
    }
    if (!again) {
        result = begin(call, domain, op->op == XEN_DOMCTL_SHADOW_OP_CLEAN);
    }
    if (result != 0) {
        return result;
    }
    result = go_on(call, domain, op);
    if (xen_repeats(result)) {
        call->number = __HYPERVISOR_arch_1;
        call->argument[1] = log->serial;
    }
    return result;
}

static int64_t operate(struct xen_call *call, struct domain *domain,
                       struct xen_domctl_shadow_op *op, bool again)
{
    switch (op->op) {
    case XEN_DOMCTL_SHADOW_OP_OFF:
        return xen_error(turn_off(call->ctx, domain));
    case XEN_DOMCTL_SHADOW_OP_ENABLE:
        return op->mode == XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY ? xen_error(enable(call, domain))
                                                              : -XEN_EINVAL;
    case XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY:
        return xen_error(enable(call, domain));
    case XEN_DOMCTL_SHADOW_OP_CLEAN:
    case XEN_DOMCTL_SHADOW_OP_PEEK:
        return ask(call, domain, op, again);
    default:
        return -XEN_EINVAL;
    }
}

int64_t xen_log_dirty(struct xen_call *call, struct domain *domain, struct xen_domctl_shadow_op *op,
                      bool again)
{
    if (domain_use(domain) == NULL) {
        return -XEN_ESRCH;
    }
    int64_t result = XEN_AGAIN;
    if (klock_try(&domain->busy)) {
        call->ctx->budget = HYPERCALL_BUDGET;
        result = operate(call, domain, op, again);
        call->ctx->budget = UINT64_MAX;
        klock_release(&domain->busy);
    }
    domain_unuse(domain);
    return result;
}
