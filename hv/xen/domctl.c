/* SPDX-License-Identifier: BSD-2-Clause */
/* domctl (Xen's public/domctl.h): domains, by the control domain. */
#include "control.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/sched.h>
#include <xen/xen.h>

#include "guest_clock.h"
#include "sched.h"

#define PAGE_TYPES_MAX 1024u /* as many as Xen takes at a time */

/* --- Domains by number ------------------------------------------------------------------------ */

struct domain *xen_domain_get(struct xen_call *call, uint32_t domid)
{
    uint32_t id = domid == DOMID_SELF ? call->domain->id
                  : domid == 0        ? CLEAVE_DOMAIN_CONTROL
                                      : domid;
    return domid == CLEAVE_DOMAIN_CONTROL ? NULL : domain_get(id);
}

struct domain *xen_domain_from(uint32_t domid)
{
    struct domain *domain = domid == 0 ? domain_get(CLEAVE_DOMAIN_CONTROL) : NULL;
    if (domain == NULL && domid <= DOMAIN_ID_MAX) {
        domain = domain_next(domid == 0 ? 0 : domid - 1);
    }
    if (domid != 0 && domain != NULL && domain->id == CLEAVE_DOMAIN_CONTROL) {
        domain_put(&this_cpu()->ctx, domain);
        return NULL; /* that is number 0 */
    }
    return domain;
}

struct domain *xen_target(struct xen_call *call, uint32_t domid, int64_t *result)
{
    struct domain *domain = xen_domain_get(call, domid);
    if (domain != NULL && domain_use(domain) != NULL) {
        return domain;
    }
    domain_put(call->ctx, domain);
    *result = -XEN_ESRCH;
    return NULL;
}

void xen_target_put(struct xen_call *call, struct domain *domain)
{
    domain_unuse(domain);
    domain_put(call->ctx, domain);
}

/* Xen's word for why it ended. */
static uint32_t shutdown_reason(const struct domain *domain)
{
    switch (domain->reason) {
    case CLEAVE_EXITED:
    case CLEAVE_HALTED:
    case CLEAVE_POWERED_OFF:
        return SHUTDOWN_poweroff;
    case CLEAVE_REBOOTED:
        return SHUTDOWN_reboot;
    case CLEAVE_SUSPENDED:
        return SHUTDOWN_suspend;
    default:
        return SHUTDOWN_crash;
    }
}

static uint32_t flags_of(struct domain *domain)
{
    uint32_t flags = XEN_DOMINF_hvm_guest | XEN_DOMINF_hap;
    bool running = false, ready = false;
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        uint8_t state = __atomic_load_n(&domain->vcpu[i]->state, __ATOMIC_RELAXED);
        running |= state == VCPU_RUNNING;
        ready |= state == VCPU_READY;
    }
    flags |= running ? XEN_DOMINF_running : 0;
    flags |= !running && !ready ? XEN_DOMINF_blocked : 0;
    flags |= domain->asked_pauses != 0 ? XEN_DOMINF_paused : 0;
    if (domain->state == CLEAVE_STATE_ENDED) {
        flags |= domain->reason == CLEAVE_DESTROYED
                     ? XEN_DOMINF_dying
                     : XEN_DOMINF_shutdown | shutdown_reason(domain) << XEN_DOMINF_shutdownshift;
    }
    return flags;
}

void xen_domain_info(struct domain *domain, struct xen_domctl_getdomaininfo *info)
{
    *info = (struct xen_domctl_getdomaininfo){.domain = (domid_t)xen_domid(domain),
                                              .shared_info_frame = ~UINT64_C(0),
                                              .max_vcpu_id = XEN_INVALID_MAX_VCPU_ID,
                                              .gpaddr_bits = GUEST_BITS,
                                              .arch_config.emulation_flags = XEN_X86_EMU_LAPIC};
    struct space *space = domain_use(domain);
    if (space == NULL) {
        info->flags = XEN_DOMINF_hvm_guest | XEN_DOMINF_hap | XEN_DOMINF_dying;
        return;
    }
    info->flags = flags_of(domain);
    info->tot_pages = domain->pages;
    info->max_pages = domain->pages_max;
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        info->nr_online_vcpus += domain->vcpu[i]->started;
        info->cpu_time += tsc_to_ns(domain->vcpu[i]->ran);
        info->max_vcpu_id = i;
    }
    if (domain->xen != NULL && domain->xen->shared_info != XEN_NOWHERE) {
        info->shared_info_frame = domain->xen->shared_info >> PAGE_SHIFT;
    }
    __builtin_memcpy(info->handle, domain->handle, sizeof(info->handle));
    domain_unuse(domain);
}

/* --- Operations ------------------------------------------------------------------------------- */

/* Xen's word for what the core refused; -EINVAL for what is not in the table. */
int64_t xen_error(enum cleave_status status)
{
    static const uint8_t errors[] = {
        [CLEAVE_NO_MEMORY] = XEN_ENOMEM, [CLEAVE_QUOTA] = XEN_ENOMEM, [CLEAVE_RESERVE] = XEN_ENOMEM,
        [CLEAVE_NO_CAP] = XEN_ESRCH,     [CLEAVE_DYING] = XEN_ESRCH,  [CLEAVE_BUSY] = XEN_EBUSY,
        [CLEAVE_EXISTS] = XEN_EEXIST,    [CLEAVE_FAULT] = XEN_EFAULT};

    if (status == CLEAVE_OK || status == CLEAVE_AGAIN || status == CLEAVE_WAIT) {
        return status == CLEAVE_OK ? 0 : status == CLEAVE_AGAIN ? XEN_AGAIN : XEN_WAIT;
    }
    return status < sizeof(errors) && errors[status] != 0 ? -(int64_t)errors[status] : -XEN_EINVAL;
}

int64_t xen_perform(struct xen_call *call, struct domain *domain, struct call *operation, op_t *op)
{
    operation->ctx = call->ctx;
    operation->vcpu = call->vcpu;
    operation->caller = call->domain;
    operation->domain = domain;
    operation->space = domain_use(domain);
    if (operation->space == NULL) {
        return -XEN_ESRCH;
    }
    call->ctx->budget = HYPERCALL_BUDGET;
    enum cleave_status status = op(operation);
    call->ctx->budget = UINT64_MAX;
    call_settle(operation, CALL_XEN, status);
    domain_unuse(domain);
    return xen_error(status);
}

/* An empty domain, paused once, with the number that is asked for; 0: any. */
static int64_t create(struct xen_call *call, struct xen_domctl *op)
{
    const struct xen_domctl_createdomain *create = &op->u.createdomain;
    const uint32_t flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap;
    struct domain *domain;
    struct space *space;
    char name[CLEAVE_NAME_SIZE];

    if ((create->flags & flags) != flags ||
        (create->flags & ~(flags | XEN_DOMCTL_CDF_oos_off)) != 0 || create->max_vcpus == 0 ||
        create->max_vcpus > CLEAVE_VCPUS_MAX) {
        return -XEN_EINVAL;
    }
    uint32_t id = op->domain;
    if (id == 0 || id >= DOMID_FIRST_RESERVED) {
        id = domain_ids_take(1);
        if (id == 0) {
            return -XEN_ENOMEM;
        }
    } else if (!domain_id_take(id)) {
        return -XEN_EEXIST;
    }
    (void)format_text(name, sizeof(name), "domain-%u", id);
    enum cleave_status status = space_create(call->ctx, call->domain->pool, UINT64_MAX, &space);
    if (status == CLEAVE_OK) {
        status = domain_make(call->ctx, id, name, call->domain, space, create->max_vcpus, false,
                             &domain);
    }
    if (status != CLEAVE_OK) {
        domain_ids_drop(id, 1);
        return xen_error(status);
    }
    __builtin_memcpy(domain->handle, create->handle, sizeof(domain->handle));
    domain->blank = 1;
    domain->asked_pauses = 1;
    clock_stop(domain);
    sched_pause(domain);
    bool entered = domain_enter(domain, false);
    MM_CHECK(entered);
    op->domain = (domid_t)id;
    return 0;
}

/* What it may have, in Xen's books, and with its tables and objects. */
static int64_t set_max_mem(struct xen_call *call, struct domain *domain, uint64_t kib)
{
    uint64_t pages = kib / (PAGE_SIZE / 1024);
    if (domain_use(domain) == NULL) {
        return -XEN_ESRCH;
    }
    uint64_t limit = pages + pages / 256 + 64 + 8u * domain->vcpu_count;
    enum cleave_status status = kib > UINT64_MAX / 2048 ? CLEAVE_RANGE : CLEAVE_AGAIN;
    if (status == CLEAVE_AGAIN && klock_try(&domain->busy)) {
        status = xen_set_limit(call->ctx, domain, limit);
        domain->pages_max = status == CLEAVE_OK ? pages : domain->pages_max;
        klock_release(&domain->busy);
    }
    domain_unuse(domain);
    return xen_error(status);
}

static int64_t vcpu_info(struct domain *domain, struct xen_domctl_getvcpuinfo *info)
{
    int64_t result = -XEN_EINVAL;
    if (domain_use(domain) == NULL) {
        return -XEN_ESRCH;
    }
    if (info->vcpu < domain->vcpu_count) {
        const struct vcpu *vcpu = domain->vcpu[info->vcpu];
        info->online = vcpu->started;
        info->blocked = vcpu->state == VCPU_BLOCKED;
        info->running = vcpu->state == VCPU_RUNNING;
        info->cpu_time = tsc_to_ns(vcpu->ran);
        info->cpu = vcpu->cpu;
        result = 0;
    }
    domain_unuse(domain);
    return result;
}

/* Which of so many pages there are: as Xen tells of a domain whose tables are its own. What is told
 * takes the place of what was asked; as in Xen, the list then begins behind it. */
static int64_t page_types(struct xen_call *call, struct domain *domain,
                          struct xen_domctl_getpageframeinfo3 *list)
{
    int64_t result = list->num <= PAGE_TYPES_MAX ? 0 : -XEN_E2BIG;
    if (result != 0 || domain_use(domain) == NULL) {
        return result != 0 ? result : -XEN_ESRCH;
    }
    while (list->num != 0 && result == 0) {
        uint64_t at = (uint64_t)list->array.p, page, type;
        struct mapping mapping;
        result = xen_get(call, at, &page, sizeof(page));
        if (result == 0) {
            bool there = page < UINT64_C(1) << (GUEST_BITS - PAGE_SHIFT) &&
                         space_lookup(call->ctx, domain->space, gpa(page << PAGE_SHIFT),
                                      &mapping) == CLEAVE_OK &&
                         mapping.region.policy != REGION_NONE;
            type = there ? XEN_DOMCTL_PFINFO_NOTAB : XEN_DOMCTL_PFINFO_XTAB;
            result = xen_put(call, at, &type, sizeof(type));
        }
        if (result == 0) {
            list->array.p++;
            list->num--;
        }
    }
    domain_unuse(domain);
    return result;
}

static int64_t destroy(struct xen_call *call, struct domain *domain)
{
    call->ctx->budget = HYPERCALL_BUDGET;
    enum cleave_status status = domain_destroy(call->ctx, domain, NULL);
    call->ctx->budget = UINT64_MAX;
    return xen_error(status);
}

static int64_t on_domain(struct xen_call *call, struct xen_domctl *op, struct domain *domain,
                         bool again)
{
    struct call operation = {.ctx = call->ctx};
    if (domain == call->domain && op->cmd != XEN_DOMCTL_getdomaininfo) {
        return -XEN_EINVAL; /* it would not come back */
    }
    switch (op->cmd) {
    case XEN_DOMCTL_getdomaininfo:
        xen_domain_info(domain, &op->u.getdomaininfo);
        op->domain = op->u.getdomaininfo.domain;
        return 0;
    case XEN_DOMCTL_pausedomain:
        return xen_perform(call, domain, &operation, op_pause);
    case XEN_DOMCTL_unpausedomain:
        return xen_perform(call, domain, &operation, op_unpause);
    case XEN_DOMCTL_destroydomain:
        return destroy(call, domain);
    case XEN_DOMCTL_getpageframeinfo3:
        return page_types(call, domain, &op->u.getpageframeinfo3);
    case XEN_DOMCTL_shadow_op:
        return xen_log_dirty(call, domain, &op->u.shadow_op, again);
    case XEN_DOMCTL_max_vcpus:
        return op->u.max_vcpus.max == domain->vcpu_count ? 0 : -XEN_EINVAL;
    case XEN_DOMCTL_max_mem:
        return set_max_mem(call, domain, op->u.max_mem.max_memkb);
    case XEN_DOMCTL_getvcpuinfo:
        return vcpu_info(domain, &op->u.getvcpuinfo);
    case XEN_DOMCTL_gethvmcontext:
        return xen_get_context(call, domain, &op->u.hvmcontext);
    case XEN_DOMCTL_sethvmcontext:
        return xen_set_context(call, domain, &op->u.hvmcontext);
    case XEN_DOMCTL_gethvmcontext_partial:
        return xen_get_record(call, domain, &op->u.hvmcontext_partial);
    case XEN_DOMCTL_getvcpucontext:
        return xen_get_registers(call, domain, &op->u.vcpucontext);
    case XEN_DOMCTL_get_address_size:
        return -XEN_EOPNOTSUPP; /* as Xen for HVM */
    case XEN_DOMCTL_set_paging_mempool_size:
    case XEN_DOMCTL_settscinfo:
        return 0; /* tables are charged as they are made; the TSC is the guest's own */
    case XEN_DOMCTL_mem_sharing_op:
        return op->u.mem_sharing_op.op == XEN_DOMCTL_MEM_SHARING_CONTROL ? 0 : -XEN_EINVAL;
    default:
        return xen_unknown(call);
    }
}

static int64_t operate(struct xen_call *call, bool again)
{
    struct xen_domctl op;
    uint64_t at = call->argument[0];
    if (!call->domain->control) {
        return -XEN_EPERM;
    }
    int64_t result = xen_get(call, at, &op, sizeof(op));
    if (result != 0) {
        return result;
    }
    if (op.interface_version != XEN_DOMCTL_INTERFACE_VERSION) {
        return -XEN_EACCES;
    }
    /* What is done must not be done again because its result cannot be written: first what was
     * read goes back. */
    result = xen_put(call, at, &op, sizeof(op));
    if (result != 0) {
        return result;
    }
    if (again && op.cmd != XEN_DOMCTL_shadow_op) {
        return -XEN_EOPNOTSUPP; /* no other goes on so */
    }
    if (op.cmd == XEN_DOMCTL_createdomain) {
        result = create(call, &op);
        return result == 0 ? xen_put(call, at, &op, sizeof(op)) : result;
    }
    struct domain *domain = op.cmd == XEN_DOMCTL_getdomaininfo && op.domain != DOMID_SELF
                                ? xen_domain_from(op.domain)
                                : xen_domain_get(call, op.domain);
    if (domain == NULL) {
        return -XEN_ESRCH;
    }
    result = on_domain(call, &op, domain, again);
    domain_put(call->ctx, domain);
    if (result == 0 || (xen_repeats(result) && op.cmd == XEN_DOMCTL_getpageframeinfo3)) {
        int64_t told = xen_put(call, at, &op, sizeof(op));
        result = told != 0 ? told : result;
    }
    return result;
}

int64_t xen_domctl(struct xen_call *call) { return operate(call, false); }
int64_t xen_domctl_again(struct xen_call *call) { return operate(call, true); }
