/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fork, snapshot and reset of running domains. The forked domain stands still for the call: its
 * vcpus are at instruction boundaries, with their hypercalls finished or still to be executed.
 */
#include "calls.h"
#include "guest.h"
#include "guest_clock.h"
#include "hypercall.h"
#include "identity.h"
#include "sched.h"
#include "stat.h"

/* The state of a vcpu that stands still, as a child is to have it. `caller` is the vcpu that asks
 * for the fork: it goes on behind its hypercall with `index` in RDX. */
static void state_of(struct vcpu *vcpu, const struct vcpu *caller, const struct hvm_exit *exit,
                     uint32_t index, struct hvm_state *state)
{
    if (vcpu->domain->snapshot) {
        *state = vcpu->saved;
        return;
    }
    hvm->vcpu_save(&vcpu->hvm, state);
    if (vcpu == caller) {
        state->regs.rax = CLEAVE_OK;
        state->regs.rdx = index;
        hvm_state_skip(state, exit->length);
    }
}

static const void *xsave_of(const struct vcpu *vcpu)
{
    return vcpu->domain->snapshot ? frame_address(vcpu->saved_xsave) : vcpu->hvm.xsave;
}

static enum cleave_status copy_vcpu(struct call *call, struct vcpu *from, struct vcpu *to,
                                    uint32_t index)
{
    struct hvm_state state;
    to->lapic = from->lapic;
    to->xen = from->xen;
    to->mtrr = from->mtrr;
    to->halted = from->halted;
    if (!from->started) {
        return CLEAVE_OK;
    }
    state_of(from, call->vcpu, call->exit, index, &state);
    to->started = 1;
    if (from->result_size != 0 &&
        from->result_size <= RESULT_KEPT) { /* its call is done, but for writing that */
        to->result_size = from->result_size;
        __builtin_memcpy(&to->result, &from->result, RESULT_KEPT);
    }
    if (to->domain->snapshot) {
        return vcpu_keep(call->ctx, to, &state, xsave_of(from));
    }
    port_copy_pages(to->hvm.xsave, xsave_of(from), 1);
    hvm->vcpu_init(&to->hvm, &state);
    return CLEAVE_OK;
}

/* Keeps what the child's reset goes back to: the state in which it starts. */
static enum cleave_status keep_base(struct call *call, struct domain *child)
{
    enum cleave_status status = CLEAVE_OK;
    for (unsigned i = 0; i < child->vcpu_count && status == CLEAVE_OK; i++) {
        struct vcpu *vcpu = child->vcpu[i];
        vcpu->saved_lapic = vcpu->lapic;
        vcpu->saved_xen = vcpu->xen; /* of those that wait for their start, too */
        vcpu->saved_mtrr = vcpu->mtrr;
        vcpu->saved_halted = vcpu->halted;
        if (vcpu->started) {
            struct hvm_state state;
            hvm->vcpu_save(&vcpu->hvm, &state);
            status = vcpu_keep(call->ctx, vcpu, &state, vcpu->hvm.xsave);
        }
    }
    if (status == CLEAVE_OK) {
        status = xen_keep(call->ctx, child);
    }
    clock_keep(child);
    child->has_base = 1;
    return status;
}

/* A domain over `space`, a fork of that of `from`, with its vcpus copied and off; not yet entered.
 * On error the space is gone, too. */
static enum cleave_status make_child(struct call *call, struct domain *from, struct space *space,
                                     uint32_t id, uint32_t index, const char *name, bool record,
                                     const void *data, struct domain **out)
{
    enum cleave_status status =
        domain_make(call->ctx, id, name, call->caller, space, from->vcpu_count, record, out);
    if (status != CLEAVE_OK) {
        return status;
    }
    (*out)->origin = from->id;
    (*out)->has_window = from->has_window;
    (*out)->no_interrupts = call->no_interrupts;
    (*out)->pages = from->pages;
    (*out)->pages_max = from->pages_max;
    if (call->into != NULL) {
        __builtin_memcpy((*out)->handle, call->into->handle, sizeof((*out)->handle));
    }
    for (unsigned i = 0; i < from->vcpu_count && status == CLEAVE_OK; i++) {
        status = copy_vcpu(call, from->vcpu[i], (*out)->vcpu[i], index);
    }
    if (status == CLEAVE_OK) {
        status = xen_fork(call->ctx, from, *out);
    }
    (*out)->asked = call->asked;
    (*out)->start_at = (*out)->vcpu[0]->hvm.regs.rip;
    (*out)->starts = !record;
    clock_fork(from, *out, !record && (call->args.fork.flags & CLEAVE_FORK_CLOCK) != 0);
    if (status == CLEAVE_OK && !record) {
        const struct cleave_fork *fork = &call->args.fork;
        status = identity_fork(call->ctx, *out, index, fork->of, data, fork->data_size);
    }
    if (status == CLEAVE_OK && !record && space->base != NULL) {
        status = keep_base(call, *out);
    }
    if (status != CLEAVE_OK) {
        domain_discard(call->ctx, *out);
    }
    return status;
}

/* Others find it and its vcpus run, both or neither. */
static void start_child(struct call *call, struct domain *child, bool paused)
{
    (void)klock_try(&child->busy); /* nobody has it yet */
    if (call->into != NULL) {
        domain_replace(call->ctx, child, call->into);
        klock_release(&call->into->busy); /* who waits for it finds it empty; the caller has it */
    } else {
        bool entered = domain_enter(child, false);
        MM_CHECK(entered);
    }
    sched_pause(child); /* no vcpu runs before all are what they are to be */
    for (unsigned i = 0; i < child->vcpu_count; i++) {
        sched_resume(child->vcpu[i]);
    }
    if (paused) {
        child->asked_pauses = 1;
        clock_stop(child);
    } else {
        sched_unpause(child);
    }
    klock_release(&child->busy); /* from here on another may destroy it */
}

/* All or none: domains over the spaces that space_fork() made. */
static enum cleave_status make_children(struct call *call, struct space **space, uint32_t first,
                                        const void *data, struct domain **child)
{
    const struct cleave_fork *fork = &call->args.fork;
    enum cleave_status status = CLEAVE_OK;
    uint32_t made = 0;

    while (made < fork->count && status == CLEAVE_OK) {
        char name[CLEAVE_NAME_SIZE];
        if (call->into != NULL) {
            __builtin_memcpy(name, call->into->name, sizeof(name));
        } else {
            (void)format_text(name, sizeof(name), "fork-%u", first + made);
        }
        status = make_child(call, call->domain, space[made], first + made, fork->first + made, name,
                            false, data, &child[made]);
        made++;
    }
    if (status == CLEAVE_OK) {
        return status;
    }
    struct mm_error error = call->ctx->error;
    for (uint32_t i = 0; i + 1 < made; i++) {
        domain_discard(call->ctx, child[i]);
    }
    for (uint32_t i = made; i < fork->count; i++) {
        space_discard(call->ctx, space[i]);
    }
    call->ctx->error = error;
    return status;
}

static enum cleave_status fork_stopped(struct call *call, uint32_t first, uint64_t limit,
                                       const void *data)
{
    const struct cleave_fork *fork = &call->args.fork;
    struct space *space[CLEAVE_FORKS_MAX];
    struct domain *child[CLEAVE_FORKS_MAX];
    const struct fork_options options = {.limit = limit,
                                         .reserve = (fork->flags & CLEAVE_FORK_RESERVE) != 0,
                                         .reserve_frames = fork->reserve >> PAGE_SHIFT,
                                         .base = (fork->flags & CLEAVE_FORK_BASE) != 0,
                                         .vcpus = (uint8_t)call->domain->vcpu_count};
    uint64_t began = read_tsc();
    enum cleave_status status =
        space_fork(call->ctx, call->domain->space, fork->count, &options, space);
    if (status == CLEAVE_OK) {
        status = make_children(call, space, first, data, child);
    }
    if (status == CLEAVE_OK) {
        stat_fork(read_tsc() - began);
        stat_stood_still(call->domain->space->stats.stood_still);
        for (uint32_t i = 0; i < fork->count; i++) {
            start_child(call, child[i], (fork->flags & CLEAVE_FORK_PAUSED) != 0);
        }
    }
    return status;
}

/* The children's ids go to the guest before the fork: afterwards a write could need memory. */
static enum cleave_status tell_ids(struct call *call, uint32_t first)
{
    const struct cleave_fork *fork = &call->args.fork;
    uint32_t ids[CLEAVE_FORKS_MAX];
    if (fork->domains == 0) {
        return CLEAVE_OK;
    }
    for (uint32_t i = 0; i < fork->count; i++) {
        ids[i] = first + i;
    }
    return guest_write(call->ctx, call->vcpu, fork->domains, ids, fork->count * sizeof(ids[0]),
                       "domains");
}

/* Can a domain that stands still be copied? One whose vcpu was about to end it ends now: its copy
 * would do nothing for ever. The caller holds `busy`. */
static enum cleave_status check_whole(struct call *call)
{
    struct domain *domain = call->domain;
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        const struct vcpu *vcpu = domain->vcpu[i];
        if (vcpu->ending != CLEAVE_RUNNING) {
            domain_end(call->ctx, domain, call->vcpu, vcpu->ending, vcpu->end_code);
        }
    }
    if (domain->state == CLEAVE_STATE_ENDED) {
        return mm_fail(call->ctx, CLEAVE_DYING, "domain", domain->id, 1, 0);
    }
    /* Whoever began the reset may never go on with it: this call does not wait for that. */
    return domain->resetting ? mm_fail(call->ctx, CLEAVE_BUSY, "domain", domain->id, 1, 0)
                             : CLEAVE_OK;
}

/* A copy of the caller's data, in a frame of its own until the children have theirs. */
static enum cleave_status read_data(struct call *call, pfn_t *frame)
{
    const struct cleave_fork *fork = &call->args.fork;
    if (fork->data_size == 0) {
        return CLEAVE_OK;
    }
    enum cleave_status status = object_alloc(call->ctx, &call->caller->space->payer, frame);
    if (status != CLEAVE_OK) {
        *frame = PFN_NONE;
        return status;
    }
    return guest_read(call->ctx, call->vcpu, fork->data, frame_address(*frame), fork->data_size,
                      "data");
}

/* Nobody uses the domain whose place a fork is to take, nor begins to. */
static bool take_place(struct domain *old)
{
    if (!klock_try(&old->busy)) {
        return false;
    }
    if (domain_close(old) && old->blank) {
        return true;
    }
    domain_reopen(old);
    klock_release(&old->busy);
    return false;
}

static enum cleave_status fork_domain(struct call *call, uint64_t limit, const void *data)
{
    const struct cleave_fork *fork = &call->args.fork;
    struct domain *domain = call->domain;

    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    if (call->into != NULL && !take_place(call->into)) {
        klock_release(&domain->busy);
        return CLEAVE_AGAIN;
    }
    uint32_t first = call->into != NULL ? call->into->id : domain_ids_take(fork->count);
    enum cleave_status status =
        first != 0 ? tell_ids(call, first)
                   : mm_fail(call->ctx, CLEAVE_COUNT, "count", fork->count, 1, DOMAIN_IDS - 1);
    if (status == CLEAVE_OK) {
        domain_stop(call->ctx, domain, call->vcpu);
        status = check_whole(call);
        if (status == CLEAVE_OK) {
            status = fork_stopped(call, first, limit, data);
        }
        domain_resume(domain);
        call->results = first;
    }
    if (status != CLEAVE_OK && call->into != NULL) {
        domain_reopen(call->into);
        klock_release(&call->into->busy);
    } else if (status != CLEAVE_OK && first != 0) {
        domain_ids_drop(first, fork->count);
    }
    klock_release(&domain->busy);
    return status;
}

/* All that can be said of the arguments without looking at memory. */
static enum cleave_status check_fork(struct call *call, uint64_t *limit)
{
    struct cleave_fork *fork = &call->args.fork;
    const uint32_t flags =
        CLEAVE_FORK_RESERVE | CLEAVE_FORK_BASE | CLEAVE_FORK_PAUSED | CLEAVE_FORK_CLOCK;

    if (fork->data_size > CLEAVE_DATA_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "data_size", fork->data_size, 0, CLEAVE_DATA_MAX);
    }
    if (fork->count == 0 || fork->count > CLEAVE_FORKS_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "count", fork->count, 1, CLEAVE_FORKS_MAX);
    }
    if (fork->flags & ~flags) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "flags", fork->flags, 0, flags);
    }
    if (fork->reserve % PAGE_SIZE != 0) {
        return mm_fail(call->ctx, CLEAVE_ALIGN, "reserve", fork->reserve, PAGE_SIZE, PAGE_SIZE);
    }
    if (fork->reserve != 0 &&
        (!(fork->flags & CLEAVE_FORK_RESERVE) || fork->reserve >> PAGE_SHIFT > UINT32_MAX)) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "reserve", fork->reserve, 0,
                       fork->flags & CLEAVE_FORK_RESERVE ? (uint64_t)UINT32_MAX << PAGE_SHIFT : 0);
    }
    fork->of = fork->of != 0 ? fork->of : fork->count;
    fork->first = fork->first != 0 ? fork->first : 1;
    if (fork->of > CLEAVE_FORK_OF_MAX || fork->of < fork->count) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "of", fork->of, fork->count, CLEAVE_FORK_OF_MAX);
    }
    if (fork->first > fork->of - fork->count + 1) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "first", fork->first, 1,
                       fork->of - fork->count + 1);
    }
    if (call->caller != NULL && call->caller->depth >= DOMAIN_DEPTH_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "depth", call->caller->depth, 0,
                       DOMAIN_DEPTH_MAX - 1);
    }
    return call_limit(call, fork->limit, limit);
}

enum cleave_status call_fork(struct call *call, const void *data)
{
    uint64_t limit;
    enum cleave_status status = check_fork(call, &limit);
    return status == CLEAVE_OK ? fork_domain(call, limit, data) : status;
}

enum cleave_status op_fork(struct call *call)
{
    uint64_t limit;
    enum cleave_status status = check_fork(call, &limit);
    if (status != CLEAVE_OK) {
        return status;
    }
    stat_mark(&call->asked);
    pfn_t data = PFN_NONE;
    status = read_data(call, &data);
    if (status == CLEAVE_OK) {
        status = fork_domain(call, limit, data.v != 0 ? frame_address(data) : NULL);
    }
    object_free(call->ctx, data);
    call->set_results = status == CLEAVE_OK;
    call->results = 0;
    return status;
}

enum cleave_status op_snapshot(struct call *call)
{
    struct cleave_snapshot *snapshot = &call->args.snapshot;
    struct domain *domain = call->domain, *made;
    struct space *space;

    if (!domain_name_legal(snapshot->name)) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "name", 0, 1, 0);
    }
    uint64_t limit;
    enum cleave_status status = call_limit(call, UINT64_MAX, &limit);
    if (status != CLEAVE_OK) {
        return status;
    }
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    uint32_t id = domain_ids_take(1);
    domain_stop(call->ctx, domain, call->vcpu);
    status = id != 0 ? check_whole(call)
                     : mm_fail(call->ctx, CLEAVE_COUNT, "domain", DOMAIN_IDS, 1, DOMAIN_IDS - 1);
    if (status == CLEAVE_OK) {
        status = space_snapshot(call->ctx, domain->space, limit, &space);
    }
    if (status == CLEAVE_OK) {
        stat_stood_still(domain->space->stats.stood_still);
        status = make_child(call, domain, space, id, 1, snapshot->name, true, NULL, &made);
    }
    if (status == CLEAVE_OK && !domain_enter(made, true)) {
        domain_discard(call->ctx, made);
        status = mm_fail(call->ctx, CLEAVE_EXISTS, "name", id, 1, 0);
    }
    domain_resume(domain);
    if (status != CLEAVE_OK && id != 0) {
        domain_ids_drop(id, 1);
    }
    klock_release(&domain->busy);
    snapshot->snapshot = id;
    return status;
}

/* Each vcpu is where it was when the base was made: running, halted, or off. */
static void reset_vcpus(struct call *call)
{
    struct domain *domain = call->domain;
    sched_off(domain);
    xen_reset(domain);
    identity_renew(domain);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        struct vcpu *vcpu = domain->vcpu[i];
        vcpu_cancel_waits(call->ctx, vcpu);
        vcpu_abandon(call->ctx, vcpu);
        vcpu->wait.outcome = WAIT_RETRY;
        vcpu->result_size = vcpu->saved_result_size;
        __builtin_memcpy(&vcpu->result, vcpu->saved_result, RESULT_KEPT);
        vcpu->walk.domain = 0;
        vcpu->error = (struct cleave_error){.low = 0};
        vcpu->ending = CLEAVE_RUNNING;
        vcpu->halted = vcpu->saved_halted;
        vcpu->xen = vcpu->saved_xen;
        vcpu_timer(vcpu, 0);
        vcpu->lapic = vcpu->saved_lapic;
        vcpu->mtrr = vcpu->saved_mtrr;
        vcpu->started = vcpu->saved_xsave.v != 0;
        if (vcpu->started) {
            port_copy_pages(vcpu->hvm.xsave, frame_address(vcpu->saved_xsave), 1);
            hvm->vcpu_restore(&vcpu->hvm, &vcpu->saved);
        }
    }
    clock_reset(domain);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        sched_resume(domain->vcpu[i]);
    }
}

enum cleave_status op_reset(struct call *call)
{
    if (call->domain == call->caller) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "domain", call->domain->id, 1, 0);
    }
    call->reset_what = CALL_RESET_STATE | CALL_RESET_MEMORY;
    return call_reset(call);
}

enum cleave_status call_reset(struct call *call)
{
    struct domain *domain = call->domain;

    if (domain->snapshot || !domain->has_base) {
        return mm_fail(call->ctx, CLEAVE_NO_BASE, "domain", domain->id, 1, 0);
    }
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    if (!domain->resetting) {
        domain->resetting = 1;
        domain_stop(call->ctx, domain, call->vcpu);
    }
    enum cleave_status status = CLEAVE_OK;
    if (domain->state == CLEAVE_STATE_ENDED) {
        status = mm_fail(call->ctx, CLEAVE_DYING, "domain", domain->id, 1, 0);
    } else if (call->reset_what & CALL_RESET_MEMORY) {
        status = space_reset(call->ctx, domain->space, NULL, 0);
    }
    if (status == CLEAVE_OK && call->reset_what & CALL_RESET_STATE) {
        reset_vcpus(call);
    }
    if (status != CLEAVE_AGAIN) {
        domain->resetting = 0;
        domain_resume(domain);
    }
    klock_release(&domain->busy);
    return status;
}
