/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memory_op of the control domain (Xen's public/memory.h): memory for other domains, and their
 * pages in its own space. Those with a list go on where they were when they are executed again: as
 * in Xen, the first argument says from bit 6 on how many are done.
 */
#include "control.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/memory.h>
#include <xen/xen.h>

#include "pin.h"

#define DONE_SHIFT 6u /* MEMOP_EXTENT_SHIFT */
#define COMMAND(call) ((call)->argument[0] & ((1u << DONE_SHIFT) - 1))
#define GFN_END (UINT64_C(1) << (GUEST_BITS - PAGE_SHIFT))

static uint64_t done_of(const struct xen_call *call) { return call->argument[0] >> DONE_SHIFT; }
static void set_done(struct xen_call *call, uint64_t done)
{
    call->argument[0] = COMMAND(call) | done << DONE_SHIFT;
}

/* --- Memory ----------------------------------------------------------------------------------- */

static int64_t settled(struct xen_call *call, struct domain *domain, enum cleave_status status)
{
    struct call operation = {
        .ctx = call->ctx, .vcpu = call->vcpu, .domain = domain, .space = domain->space};
    call->ctx->budget = UINT64_MAX;
    call_settle(&operation, CALL_XEN + COMMAND(call), status);
    return xen_error(status);
}

static bool has_memory(struct xen_call *call, struct space *space, uint64_t at, uint64_t pages)
{
    read_lock(call->ctx, &space->lock, RANK_SPACE);
    bool empty = space_is_empty(space, (struct gfn_range){gfn(at), gfn(at + pages)});
    read_unlock(call->ctx, &space->lock, RANK_SPACE);
    return !empty;
}

/* Memory at one extent: as large leaves as its order allows. It counts from when the extent has a
 * region, so that going on with it, or asking again for what is there, counts nothing. The domain's
 * `busy` is held. */
static int64_t populate_one(struct xen_call *call, struct domain *domain, uint64_t at,
                            unsigned order)
{
    const struct region ram = {.policy = REGION_PRIVATE,
                               .rights = RIGHT_ALL,
                               .order = order >= 18  ? 2
                                        : order >= 9 ? 1
                                                     : 0};
    uint64_t pages = UINT64_C(1) << order;
    enum cleave_status status = CLEAVE_OK;
    if (at % pages != 0 || at >= GFN_END || pages > GFN_END - at) {
        return -XEN_EINVAL;
    }
    bool fresh = !has_memory(call, domain->space, at, pages);
    if (fresh && (domain->pages > domain->pages_max || pages > domain->pages_max - domain->pages)) {
        return -XEN_ENOMEM;
    }
    domain->blank = 0;
    call->ctx->budget = HYPERCALL_BUDGET;
    if (fresh) {
        status = space_set_region(call->ctx, domain->space, gpa(at << PAGE_SHIFT),
                                  pages << PAGE_SHIFT, &ram);
        domain->pages += status == CLEAVE_OK ? pages : 0;
    }
    bool placed = fresh && status == CLEAVE_OK;
    if (status == CLEAVE_OK) {
        status =
            space_populate(call->ctx, domain->space, gpa(at << PAGE_SHIFT), pages << PAGE_SHIFT);
    }
    if (placed && pool_lacks(status)) { /* what it would be placed in is not there */
        call->ctx->budget = UINT64_MAX;
        enum cleave_status undone =
            space_unmap(call->ctx, domain->space, gpa(at << PAGE_SHIFT), pages << PAGE_SHIFT);
        domain->pages -= undone == CLEAVE_OK ? pages : 0;
    }
    return settled(call, domain, status);
}

/* What has memory and then has none is no longer counted. `busy` is held. */
static int64_t remove_one(struct xen_call *call, struct domain *domain, uint64_t at, unsigned order)
{
    uint64_t pages = UINT64_C(1) << order;
    if (at >= GFN_END || pages > GFN_END - at) {
        return -XEN_EINVAL;
    }
    bool had = has_memory(call, domain->space, at, pages);
    call->ctx->budget = HYPERCALL_BUDGET;
    enum cleave_status status =
        space_unmap(call->ctx, domain->space, gpa(at << PAGE_SHIFT), pages << PAGE_SHIFT);
    if (had && !has_memory(call, domain->space, at, pages)) {
        domain->pages -= domain->pages < pages ? domain->pages : pages;
    }
    return settled(call, domain, status);
}

/* Each extent in turn. Returns how many were done where one is refused, as Xen does. */
static int64_t reservation(struct xen_call *call)
{
    struct xen_memory_reservation list;
    uint64_t at;
    int64_t result = xen_get(call, call->argument[1], &list, sizeof(list));
    if (result != 0) {
        return result;
    }
    if (list.extent_order > 18 || list.nr_extents >> (64 - DONE_SHIFT) != 0 ||
        done_of(call) > list.nr_extents) {
        return -XEN_EINVAL;
    }
    struct domain *domain = xen_target(call, list.domid, &result);
    if (domain == NULL) {
        return result;
    }
    if (!klock_try(&domain->busy)) {
        xen_target_put(call, domain);
        return XEN_AGAIN;
    }
    while (result == 0 && done_of(call) < list.nr_extents) {
        result = xen_get(call, (uint64_t)list.extent_start.p + done_of(call) * sizeof(at), &at,
                         sizeof(at));
        if (result == 0) {
            result = COMMAND(call) == XENMEM_populate_physmap
                         ? populate_one(call, domain, at, list.extent_order)
                         : remove_one(call, domain, at, list.extent_order);
        }
        if (result == 0) {
            set_done(call, done_of(call) + 1);
        }
    }
    klock_release(&domain->busy);
    xen_target_put(call, domain);
    return xen_repeats(result) ? result : (int64_t)done_of(call);
}

static int64_t maximum_gpfn(struct xen_call *call)
{
    domid_t domid;
    int64_t result = xen_get(call, call->argument[1], &domid, sizeof(domid));
    if (result != 0) {
        return result;
    }
    struct domain *domain = xen_target(call, domid, &result);
    if (domain == NULL) {
        return result;
    }
    /* From the top down: each lookup tells how far a hole reaches. */
    uint64_t at = GFN_END;
    while (at != 0 && result == 0) {
        struct mapping mapping;
        enum cleave_status status =
            space_lookup(call->ctx, domain->space, gpa((at - 1) << PAGE_SHIFT), &mapping);
        result = xen_error(status);
        if (status != CLEAVE_OK || mapping.kind != PTE_KIND_ABSENT) {
            break;
        }
        at = level_align(gfn(at - 1), mapping.level).v;
    }
    xen_target_put(call, domain);
    return result != 0 ? result : at == 0 ? 0 : (int64_t)(at - 1);
}

/* --- Pages of others -------------------------------------------------------------------------- */

static int64_t map_one(struct xen_call *call, struct domain *from, uint64_t page, uint64_t to)
{
    if (page >= GFN_END || to >= GFN_END) {
        return -XEN_EINVAL;
    }
    call->ctx->budget = HYPERCALL_BUDGET;
    enum cleave_status status = foreign_map(call->ctx, from->space, gpa(page << PAGE_SHIFT),
                                            call->domain->space, gpa(to << PAGE_SHIFT));
    call->ctx->budget = UINT64_MAX;
    return status == CLEAVE_FAULT ? -XEN_EINVAL : xen_error(status); /* a hole, as in Xen */
}

/* Each page gets its own error; the call succeeds. */
static int64_t add_batch(struct xen_call *call)
{
    struct xen_add_to_physmap_batch batch;
    uint64_t page, to;
    int64_t result = xen_get(call, call->argument[1], &batch, sizeof(batch));
    if (result != 0) {
        return result;
    }
    if (batch.domid != DOMID_SELF || batch.space != XENMAPSPACE_gmfn_foreign ||
        done_of(call) > batch.size) {
        return -XEN_EINVAL;
    }
    struct domain *from = xen_target(call, batch.u.foreign_domid, &result);
    if (from == NULL) {
        return result;
    }
    while (result == 0 && done_of(call) < batch.size) {
        uint64_t i = done_of(call);
        result = xen_get(call, (uint64_t)batch.idxs.p + i * 8, &page, 8);
        if (result == 0) {
            result = xen_get(call, (uint64_t)batch.gpfns.p + i * 8, &to, 8);
        }
        int32_t error = 0; /* first, so that a page that was mapped is not mapped again */
        if (result == 0) {
            result = xen_put(call, (uint64_t)batch.errs.p + i * 4, &error, 4);
        }
        if (result != 0) {
            break;
        }
        int64_t mapped = map_one(call, from, page, to);
        if (xen_repeats(mapped)) {
            result = mapped;
            break;
        }
        error = (int32_t)mapped;
        if (error != 0) {
            result = xen_put(call, (uint64_t)batch.errs.p + i * 4, &error, 4);
        }
        if (result == 0) {
            set_done(call, i + 1);
        }
    }
    xen_target_put(call, from);
    return result;
}

static int64_t remove_page(struct xen_call *call)
{
    struct xen_remove_from_physmap remove;
    int64_t result = xen_get(call, call->argument[1], &remove, sizeof(remove));
    if (result != 0) {
        return result;
    }
    if (remove.gpfn >= GFN_END) {
        return -XEN_EINVAL;
    }
    struct domain *domain = xen_target(call, remove.domid, &result);
    if (domain == NULL) {
        return result;
    }
    enum cleave_status status =
        foreign_unmap(call->ctx, domain->space, gpa(remove.gpfn << PAGE_SHIFT));
    result = xen_error(status);
    if (status == CLEAVE_NOT_MAPPED && !klock_try(&domain->busy)) {
        result = XEN_AGAIN;
    } else if (status == CLEAVE_NOT_MAPPED) {
        result = remove_one(call, domain, remove.gpfn, 0);
        klock_release(&domain->busy);
    }
    xen_target_put(call, domain);
    return result;
}

/* --- Forks ------------------------------------------------------------------------------------ */

static enum cleave_status fork_operation(struct call *call) { return call_fork(call, NULL); }

/* The child is a domain that was made empty, and stays paused. */
static int64_t fork(struct xen_call *call, const struct xen_mem_sharing_op *op)
{
    const uint16_t known = XENMEM_FORK_WITH_IOMMU_ALLOWED | XENMEM_FORK_BLOCK_INTERRUPTS;
    int64_t result = -XEN_EINVAL;
    if (op->u.fork.pad != 0 || (op->u.fork.flags & ~known) != 0) {
        return result;
    }
    struct domain *parent = xen_domain_get(call, op->u.fork.parent_domain);
    struct domain *child = xen_domain_get(call, op->domain);
    if (parent == NULL || child == NULL) {
        result = -XEN_ESRCH;
    } else if (parent != child && parent != call->domain && child->blank &&
               child->vcpu_count == parent->vcpu_count) {
        struct call operation = {
            .into = child,
            .no_interrupts = (op->u.fork.flags & XENMEM_FORK_BLOCK_INTERRUPTS) != 0,
            .args.fork = {
                .count = 1, .limit = UINT64_MAX, .flags = CLEAVE_FORK_BASE | CLEAVE_FORK_PAUSED}};
        result = xen_perform(call, parent, &operation, fork_operation);
    }
    domain_put(call->ctx, child);
    domain_put(call->ctx, parent);
    return result;
}

static int64_t fork_reset(struct xen_call *call, const struct xen_mem_sharing_op *op)
{
    int64_t result = 0;
    struct call operation = {.ctx = call->ctx};
    const uint16_t both = XENMEM_FORK_RESET_STATE | XENMEM_FORK_RESET_MEMORY;
    if (op->u.fork.pad != 0 || op->u.fork.flags == 0 || (op->u.fork.flags & ~both) != 0) {
        return -XEN_EINVAL;
    }
    struct domain *child = xen_domain_get(call, op->domain);
    if (child == NULL) {
        return -XEN_ESRCH;
    }
    operation.reset_what =
        (uint8_t)((op->u.fork.flags & XENMEM_FORK_RESET_STATE ? CALL_RESET_STATE : 0) |
                  (op->u.fork.flags & XENMEM_FORK_RESET_MEMORY ? CALL_RESET_MEMORY : 0));
    result = child != call->domain ? xen_perform(call, child, &operation, call_reset) : -XEN_EINVAL;
    domain_put(call->ctx, child);
    return result;
}

static int64_t sharing_op(struct xen_call *call)
{
    struct xen_mem_sharing_op op;
    int64_t result = xen_get(call, call->argument[1], &op, sizeof(op));
    if (result != 0) {
        return result;
    }
    switch (op.op) {
    case XENMEM_sharing_op_fork:
        return fork(call, &op);
    case XENMEM_sharing_op_fork_reset:
        return fork_reset(call, &op);
    default:
        return xen_unknown(call);
    }
}

int64_t xen_physmap_op(struct xen_call *call)
{
    if (!call->domain->control) {
        return xen_unknown(call);
    }
    switch (COMMAND(call)) {
    case XENMEM_populate_physmap:
    case XENMEM_decrease_reservation:
        return reservation(call);
    case XENMEM_maximum_gpfn:
        return maximum_gpfn(call);
    case XENMEM_add_to_physmap_batch:
        return add_batch(call);
    case XENMEM_remove_from_physmap:
        return remove_page(call);
    case XENMEM_sharing_op:
        return sharing_op(call);
    case XENMEM_set_memory_map:
        return xen_set_memory_map(call);
    case XENMEM_machine_memory_map:
        return xen_machine_map(call);
    default:
        return xen_unknown(call);
    }
}
