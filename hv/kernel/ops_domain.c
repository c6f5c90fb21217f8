/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on domains as a whole: create, start, pause, destroy, wait, statistics. */
#include "calls.h"
#include "grant.h"
#include "guest.h"
#include "guest_clock.h"
#include "hypercall.h"
#include "identity.h"
#include "sched.h"
#include "stat.h"
#include "tenant.h"

#define PAUSES_MAX (UINT32_MAX / 2) /* room in `paused` for those of calls under way */

enum cleave_status call_limit(struct call *call, uint64_t limit, uint64_t *frames)
{
    const struct domain *charged = call->caller != NULL ? call->caller : call->domain;
    const struct payer *payer = &charged->space->payer;
    uint64_t own = account_of(payer->pool, payer->account)->limit;

    *frames = limit == UINT64_MAX ? own : limit >> PAGE_SHIFT;
    if (*frames > own) {
        return mm_fail(call->ctx, CLEAVE_QUOTA, "limit", limit, 0, own << PAGE_SHIFT);
    }
    return CLEAVE_OK;
}

/* What CREATE and CREATE_IN have in common. `pool` 0: the caller's. An empty name is made one of
 * the id. */
static enum cleave_status create_domain(struct call *call, char name[CLEAVE_NAME_SIZE],
                                        uint32_t vcpus, uint64_t limit, uint32_t pool,
                                        uint32_t *made)
{
    bool chosen = name[0] != '\0';
    struct space *space;
    struct domain *domain;
    uint32_t id = domain_ids_take(1);
    if (id == 0) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "domain", DOMAIN_IDS, 1, DOMAIN_IDS - 1);
    }
    if (!chosen) {
        (void)format_text(name, CLEAVE_NAME_SIZE, "domain-%u", id);
    }
    enum cleave_status status = pool == 0
                                    ? space_create(call->ctx, call->caller->pool, limit, &space)
                                    : tenant_create_space(call->ctx, pool - 1, limit, &space);
    if (status == CLEAVE_OK) {
        status = domain_make(call->ctx, id, name, call->caller, space, vcpus, false, &domain);
    }
    if (status == CLEAVE_OK && !domain_enter(domain, chosen)) {
        domain_discard(call->ctx, domain);
        status = mm_fail(call->ctx, CLEAVE_EXISTS, "name", id, 1, 0);
    }
    if (status != CLEAVE_OK) {
        domain_ids_drop(id, 1);
        return status;
    }
    *made = id;
    return CLEAVE_OK;
}

static enum cleave_status check_create(struct call *call, const char name[CLEAVE_NAME_SIZE],
                                       uint32_t vcpus)
{
    if (name[0] != '\0' && !domain_name_legal(name)) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "name", 0, 1, 0);
    }
    if (vcpus == 0 || vcpus > CLEAVE_VCPUS_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "vcpus", vcpus, 1, CLEAVE_VCPUS_MAX);
    }
    if (call->caller->depth >= DOMAIN_DEPTH_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "depth", call->caller->depth, 0,
                       DOMAIN_DEPTH_MAX - 1);
    }
    return CLEAVE_OK;
}

enum cleave_status op_create(struct call *call)
{
    struct cleave_create *create = &call->args.create;
    uint64_t limit;
    enum cleave_status status = check_create(call, create->name, create->vcpus);
    if (status == CLEAVE_OK) {
        status = call_limit(call, create->limit, &limit);
    }
    return status == CLEAVE_OK
               ? create_domain(call, create->name, create->vcpus, limit, 0, &create->domain)
               : status;
}

enum cleave_status op_create_in(struct call *call)
{
    struct cleave_create_in *create = &call->args.create_in;
    uint64_t limit = create->limit == UINT64_MAX ? UINT64_MAX : create->limit >> PAGE_SHIFT;
    if (!call->caller->control) {
        return mm_fail(call->ctx, CLEAVE_DENIED, "caller", call->caller->id, 1, 0);
    }
    enum cleave_status status = check_create(call, create->name, create->vcpus);
    if (status == CLEAVE_OK && (create->pool == 0 || create->pool > TENANTS_MAX)) {
        status = mm_fail(call->ctx, CLEAVE_RANGE, "pool", create->pool, 1, TENANTS_MAX);
    }
    return status == CLEAVE_OK ? create_domain(call, create->name, create->vcpus, limit,
                                               create->pool, &create->domain)
                               : status;
}

/* Nothing is left of what an earlier run or a fork put into it. */
static void start_vcpu(struct vcpu *vcpu, const struct cleave_start *start)
{
    struct hvm_state state;
    hvm_state_start(&state, start->entry, start->argument);
    state.tsc_offset = clock_offset(vcpu, vcpu->domain->tsc_offset);
    lapic_init(&vcpu->lapic, vcpu->hvm.apic_id, vcpu->number == 0);
    vcpu->lapic.activity = LAPIC_ACTIVE;
    mtrr_init(&vcpu->mtrr);
    port_zero_pages(vcpu->hvm.xsave, 1);
    hvm->vcpu_init(&vcpu->hvm, &state);
    xen_vcpu_restart(vcpu);
    vcpu->error = (struct cleave_error){.low = 0};
    vcpu->halted = 0;
    vcpu->started = 1;
    sched_resume(vcpu);
}

/* Also one of a fork that halts, or that waits for its start-up since an INIT, as in the parent. */
static bool was_started(const struct vcpu *vcpu)
{
    return vcpu->state != VCPU_OFF || vcpu->started || vcpu->halted;
}

enum cleave_status op_start(struct call *call)
{
    const struct cleave_start *start = &call->args.start;
    struct domain *domain = call->domain;
    enum cleave_status status = CLEAVE_OK;

    if (domain->snapshot) {
        return mm_fail(call->ctx, CLEAVE_FROZEN, "domain", domain->id, 1, 0);
    }
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    domain_stop(call->ctx, domain, call->vcpu); /* no sibling sends a start-up meanwhile */
    if (domain->state == CLEAVE_STATE_ENDED) {
        status = mm_fail(call->ctx, CLEAVE_DYING, "domain", domain->id, 1, 0);
    } else if (start->vcpu >= domain->vcpu_count) {
        status = mm_fail(call->ctx, CLEAVE_RANGE, "vcpu", start->vcpu, 0, domain->vcpu_count - 1u);
    } else if (was_started(domain->vcpu[start->vcpu])) {
        status = mm_fail(call->ctx, CLEAVE_EXISTS, "vcpu", start->vcpu, 1, 0);
    } else {
        start_vcpu(domain->vcpu[start->vcpu], start);
    }
    domain_resume(domain);
    klock_release(&domain->busy);
    return status;
}

enum cleave_status op_pause(struct call *call)
{
    struct domain *domain = call->domain;
    if (domain->snapshot) {
        return mm_fail(call->ctx, CLEAVE_FROZEN, "domain", domain->id, 1, 0);
    }
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = CLEAVE_OK;
    if (domain->asked_pauses == PAUSES_MAX) {
        status = mm_fail(call->ctx, CLEAVE_OVERFLOW, "domain", domain->id, 1, 0);
    } else {
        domain->asked_pauses++;
        domain_stop(call->ctx, domain, call->vcpu);
        clock_stop(domain);
    }
    klock_release(&domain->busy);
    return status;
}

enum cleave_status op_unpause(struct call *call)
{
    struct domain *domain = call->domain;
    if (domain->snapshot) {
        return mm_fail(call->ctx, CLEAVE_FROZEN, "domain", domain->id, 1, 0);
    }
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = CLEAVE_OK;
    if (domain->asked_pauses == 0) {
        status = mm_fail(call->ctx, CLEAVE_INVALID, "domain", domain->id, 1, 0);
    } else {
        if (--domain->asked_pauses == 0) {
            clock_go(domain);
        }
        sched_wake_sleepers(domain, SLEEP_QUOTA); /* its limit may be far enough away now */
        domain_resume(domain);
    }
    klock_release(&domain->busy);
    return status;
}

enum cleave_status op_destroy(struct call *call)
{
    if (call->domain == call->caller || domain_commands(call->domain, call->caller)) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "domain", call->domain->id, 1, 0);
    }
    return domain_destroy(call->ctx, call->domain, NULL);
}

/* Is the caller the one who is told of its end, so that nobody else need be? */
static bool reports_to(const struct domain *domain, const struct domain *caller)
{
    return domain->parent == caller ||
           (caller->control && (domain->parent == NULL || domain->parent->control));
}

/* A child of the caller that has ended: `id`, or for 0 one that was not reported. It is reported
 * then. The control domain may name any domain, whose maker is told all the same. */
static enum cleave_status ended_child(struct call *call, uint32_t id, struct domain **found)
{
    bool children = false;
    struct domain *domain = id != 0 ? domain_get(id) : domain_next(0);

    *found = NULL;
    while (domain != NULL) {
        uint32_t at = domain->id;
        bool own = reports_to(domain, call->caller);
        bool child = (own || (call->caller->control && id != 0)) && !domain->snapshot &&
                     domain != call->caller;
        bool ended = child && domain->state == CLEAVE_STATE_ENDED;
        if (ended &&
            (!own || !__atomic_exchange_n(&domain->reported, 1, __ATOMIC_RELAXED) || id != 0)) {
            *found = domain;
            return CLEAVE_OK;
        }
        children |= child && !ended;
        domain_put(call->ctx, domain);
        domain = id != 0 ? NULL : domain_next(at);
    }
    return children ? CLEAVE_WAIT : mm_fail(call->ctx, CLEAVE_NO_CAP, "domain", id, 1, 0);
}

enum cleave_status op_wait(struct call *call)
{
    struct cleave_wait *wait = &call->args.wait;
    struct domain *domain;

    if (wait->flags & ~CLEAVE_WAIT_NOT) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "flags", wait->flags, 0, CLEAVE_WAIT_NOT);
    }
    /* Before it looks, so that an end from now on wakes it. */
    __atomic_store_n(&call->vcpu->sleep, SLEEP_CHILD, __ATOMIC_SEQ_CST);
    enum cleave_status status = ended_child(call, wait->domain, &domain);
    if (status == CLEAVE_WAIT && !(wait->flags & CLEAVE_WAIT_NOT)) {
        return CLEAVE_WAIT;
    }
    call->vcpu->sleep = SLEEP_NONE;
    sched_expect(call->vcpu); /* an end from before is no wake of what follows */
    if (status == CLEAVE_WAIT) {
        return mm_fail(call->ctx, CLEAVE_BUSY, "domain", wait->domain, 1, 0);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (domain_use(domain) == NULL) { /* a sibling destroys it */
        domain_put(call->ctx, domain);
        return CLEAVE_AGAIN;
    }
    uint32_t size = domain->result_size < wait->size ? domain->result_size : wait->size;
    if (size != 0) {
        status = guest_write(call->ctx, call->vcpu, wait->result, domain->result, size, "result");
    }
    domain_unuse(domain);
    if (status == CLEAVE_OK) {
        wait->which = domain->id;
        wait->reason = domain->reason;
        wait->code = domain->code;
        wait->size = domain->result_size;
    } else if (reports_to(domain, call->caller)) {
        __atomic_store_n(&domain->reported, 0, __ATOMIC_RELAXED); /* it was not told */
    }
    domain_put(call->ctx, domain);
    return status;
}

enum cleave_status op_stat(struct call *call)
{
    struct domain *domain = call->domain;
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = stat_domain(call->ctx, domain, &call->vcpu->walk, &call->args.stat);
    klock_release(&domain->busy);
    return status;
}

#define LIST_LOOKS 64u /* domains that one call looks at: to look at one takes up to its depth */

static void describe(struct domain *domain, struct cleave_list *list)
{
    *list = (struct cleave_list){.domain = domain->id,
                                 .state = CLEAVE_STATE_ENDED,
                                 .parent = domain->parent != NULL ? domain->parent->id : 0,
                                 .origin = domain->origin,
                                 .vcpus = domain->vcpu_count,
                                 .pauses = domain->asked_pauses,
                                 .reason = domain->reason,
                                 .code = domain->code,
                                 .pool = tenant_number(domain->pool)};
    list->flags = (domain->snapshot ? CLEAVE_LIST_SNAPSHOT : 0) |
                  (domain->has_base && !domain->snapshot ? CLEAVE_LIST_BASE : 0);
    __builtin_memcpy(list->name, domain->name, sizeof(list->name));
    if (domain_use(domain) != NULL) { /* else it is being destroyed */
        list->state = stat_state(domain);
        domain_unuse(domain);
    }
}

enum cleave_status op_list(struct call *call)
{
    struct cleave_list *list = &call->args.list;
    uint32_t id = list->domain;
    struct domain *domain;

    if (id > CLEAVE_DOMAIN_CONTROL) {
        return mm_fail(call->ctx, CLEAVE_RANGE, "domain", id, 0, CLEAVE_DOMAIN_CONTROL);
    }
    for (unsigned looks = 0; looks < LIST_LOOKS; looks++) {
        domain = domain_next(id);
        if (domain == NULL) {
            *list = (struct cleave_list){.domain = 0};
            return CLEAVE_OK;
        }
        id = domain->id;
        bool found =
            domain_commands(call->caller, domain) || grant_rights(call->caller, domain) != 0;
        if (found) {
            describe(domain, list);
        }
        domain_put(call->ctx, domain);
        if (found) {
            return CLEAVE_OK;
        }
    }
    *list = (struct cleave_list){.domain = id}; /* as far as it has looked */
    return CLEAVE_OK;
}

enum cleave_status op_rename(struct call *call)
{
    struct domain *domain = call->domain;
    if (!domain_name_legal(call->args.rename.name)) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "name", 0, 1, 0);
    }
    if (!klock_try(&domain->busy)) { /* a fork takes its place, and has its name */
        return CLEAVE_AGAIN;
    }
    bool renamed = domain_rename(domain, call->args.rename.name, call->caller);
    klock_release(&domain->busy);
    return renamed ? CLEAVE_OK : mm_fail(call->ctx, CLEAVE_EXISTS, "name", domain->id, 1, 0);
}

enum cleave_status op_grant(struct call *call)
{
    const struct cleave_grant *grant = &call->args.grant;
    const uint32_t known = CLEAVE_RIGHT_FORK | CLEAVE_RIGHT_LOOK | CLEAVE_RIGHT_HOLD;
    uint32_t id = grant->over == CLEAVE_DOMAIN_SELF ? call->caller->id : grant->over;

    if (grant->rights & ~known) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "rights", grant->rights, 0, known);
    }
    struct domain *over = domain_get(id);
    enum cleave_status status = CLEAVE_OK;
    if (over == NULL || !domain_commands(call->caller, over)) {
        status = mm_fail(call->ctx, CLEAVE_NO_CAP, "over", grant->over, 1, 0);
    } else if (over == call->domain) {
        status = mm_fail(call->ctx, CLEAVE_INVALID, "over", grant->over, 1, 0);
    } else {
        status = grant_set(call->ctx, call->domain, over, grant->rights);
    }
    domain_put(call->ctx, over);
    return status;
}

static bool has_begun(const struct domain *domain)
{
    for (uint32_t i = 0; i < domain->vcpu_count; i++) {
        if (was_started(domain->vcpu[i])) {
            return true;
        }
    }
    return false;
}

/* Not while a guest runs that knows nothing of these pages. The caller holds its `busy`. */
static enum cleave_status make_window(struct call *call, uint64_t memory)
{
    struct domain *domain = call->domain;
    const struct region pages = {.policy = REGION_PRIVATE, .rights = RIGHT_READ | RIGHT_WRITE};

    if (domain->has_window || has_begun(domain)) {
        return mm_fail(call->ctx, CLEAVE_EXISTS, "domain", domain->id, 1, 0);
    }
    enum cleave_status status =
        space_set_region(call->ctx, call->space, gpa(XEN_WINDOW), XEN_WINDOW_SIZE, &pages);
    if (status == CLEAVE_OK) {
        domain->has_window = 1;
        domain->blank = 0;
        domain->pages = domain->pages_max = memory >> PAGE_SHIFT;
        identity_make(domain);
    }
    return status;
}

enum cleave_status op_window(struct call *call)
{
    uint64_t memory = call->args.window.memory;
    struct domain *domain = call->domain;

    if (memory % PAGE_SIZE != 0) {
        return mm_fail(call->ctx, CLEAVE_ALIGN, "memory", memory, PAGE_SIZE, PAGE_SIZE);
    }
    if (domain->snapshot) {
        return mm_fail(call->ctx, CLEAVE_FROZEN, "domain", domain->id, 1, 0);
    }
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = make_window(call, memory);
    klock_release(&domain->busy);
    return status;
}
