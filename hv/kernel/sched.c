/* SPDX-License-Identifier: BSD-2-Clause */
/* The run queue, pauses, and standing still; see sched.h. Everything is under `queue.lock`. */
#include "sched.h"

#include "monitor.h"
#include "top.h"

static struct {
    struct klock lock;
    struct vcpu *first, *last;
} queue;

static struct {
    struct klock owner;
    uint32_t wanted;
    uint32_t standing;
} world;

static uint8_t idle[MM_MAX_CPUS];

/* --- The queue -------------------------------------------------------------------------------- */

static void enqueue(struct vcpu *vcpu)
{
    if (vcpu->queued || vcpu->domain->paused != 0) {
        return;
    }
    vcpu->queued = 1;
    vcpu->next = NULL;
    vcpu->previous = queue.last;
    if (queue.last != NULL) {
        queue.last->next = vcpu;
    } else {
        queue.first = vcpu;
    }
    queue.last = vcpu;
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        if (idle[i]) {
            idle[i] = 0;
            __atomic_store_n(&cpu_at(i)->resched, 1, __ATOMIC_RELEASE);
            if (i != this_cpu()->id) {
                cpu_send(i, VECTOR_RESCHED);
            }
            break;
        }
    }
}

static void dequeue(struct vcpu *vcpu)
{
    if (!vcpu->queued) {
        return;
    }
    vcpu->queued = 0;
    if (vcpu->previous != NULL) {
        vcpu->previous->next = vcpu->next;
    } else {
        queue.first = vcpu->next;
    }
    if (vcpu->next != NULL) {
        vcpu->next->previous = vcpu->previous;
    } else {
        queue.last = vcpu->previous;
    }
}

static struct vcpu *pick(struct percpu *cpu)
{
    klock_take(&queue.lock);
    struct vcpu *vcpu = queue.first;
    if (vcpu != NULL) {
        dequeue(vcpu);
        vcpu->state = VCPU_RUNNING;
        vcpu->cpu = cpu->id;
        vcpu->woken = 0;
        vcpu->sleep = SLEEP_NONE;
    }
    idle[cpu->id] = vcpu == NULL;
    klock_release(&queue.lock);
    return vcpu;
}

/* INIT stops a vcpu wherever it waits: attention.c takes it out of queues before it waits again. */
static bool has_init(const struct vcpu *vcpu)
{
    return vcpu->sleep != SLEEP_SIPI &&
           (__atomic_load_n(&vcpu->lapic.request, __ATOMIC_SEQ_CST) & LAPIC_REQUEST_INIT) != 0;
}

/* The vcpu left its CPU, whose state it no longer holds. */
static void put_down(struct vcpu *vcpu)
{
    klock_take(&queue.lock);
    if (vcpu->domain->state == CLEAVE_STATE_ENDED) {
        vcpu->state = VCPU_OFF;
    } else if (vcpu->sleep != SLEEP_NONE && !vcpu->woken && !has_init(vcpu)) {
        vcpu->state = VCPU_BLOCKED;
    } else {
        vcpu->state = VCPU_READY;
        enqueue(vcpu);
    }
    klock_release(&queue.lock);
}

/* --- From elsewhere --------------------------------------------------------------------------- */

void sched_start(struct vcpu *vcpu)
{
    klock_take(&queue.lock);
    if (vcpu->state == VCPU_OFF && vcpu->domain->state != CLEAVE_STATE_ENDED) {
        vcpu->state = VCPU_READY;
        enqueue(vcpu);
    }
    klock_release(&queue.lock);
}

void sched_expect(struct vcpu *vcpu)
{
    klock_take(&queue.lock); /* who saw it sleep in that way has woken it, or does not */
    vcpu->woken = 0;
    klock_release(&queue.lock);
}

void sched_wake(struct vcpu *vcpu)
{
    klock_take(&queue.lock);
    vcpu->woken = 1;
    if (vcpu->state == VCPU_BLOCKED) {
        vcpu->state = VCPU_READY;
        enqueue(vcpu);
    }
    klock_release(&queue.lock);
}

void sched_wake_sleepers(struct domain *domain, enum vcpu_sleep sleep)
{
    klock_take(&queue.lock);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        struct vcpu *vcpu = domain->vcpu[i];
        if (vcpu->sleep != sleep) {
            continue; /* it may be in a queue of the core: to run it now would queue it twice */
        }
        vcpu->woken = 1;
        if (vcpu->state == VCPU_BLOCKED) {
            vcpu->state = VCPU_READY;
            enqueue(vcpu);
        }
    }
    klock_release(&queue.lock);
}

void vcpu_attend(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->attention, 1, __ATOMIC_SEQ_CST);
    klock_take(&queue.lock);
    uint8_t sleep = __atomic_load_n(&vcpu->sleep, __ATOMIC_SEQ_CST);
    bool waits = sleep == SLEEP_HALT || sleep == SLEEP_SIPI || has_init(vcpu);
    if (vcpu->state == VCPU_RUNNING) {
        vcpu->woken |= waits;
        if (vcpu->cpu != this_cpu()->id) {
            cpu_send(vcpu->cpu, VECTOR_KICK);
        }
    } else if ((vcpu->state == VCPU_BLOCKED && waits) ||
               (vcpu->state == VCPU_OFF && lapic_wakes(&vcpu->lapic) &&
                vcpu->domain->state != CLEAVE_STATE_ENDED)) {
        vcpu->state = VCPU_READY;
        enqueue(vcpu);
    }
    klock_release(&queue.lock);
}

void sched_resume(struct vcpu *vcpu)
{
    vcpu_attend(vcpu); /* first: once it can be picked it looks before its next instruction */
    if (vcpu->started && !vcpu->halted) {
        sched_start(vcpu);
    }
}

uint32_t sched_forget(struct domain *domain)
{
    klock_take(&queue.lock);
    uint32_t count = domain->vcpu_count;
    domain->vcpu_count = 0;
    klock_release(&queue.lock);
    return count;
}

void port_wake(struct vcpu_wait *wait) { sched_wake((struct vcpu *)wait); }

void port_starved(struct space *space)
{
    (void)space; /* CLEAVE_OP_STAT shows it: the vcpu sleeps for memory */
}

void sched_pause(struct domain *domain)
{
    klock_take(&queue.lock);
    domain->paused++;
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        struct vcpu *vcpu = domain->vcpu[i];
        dequeue(vcpu);
        if (vcpu->state == VCPU_RUNNING) {
            __atomic_store_n(&cpu_at(vcpu->cpu)->resched, 1, __ATOMIC_RELEASE);
            if (vcpu->cpu != this_cpu()->id) {
                cpu_send(vcpu->cpu, VECTOR_RESCHED);
            }
        }
    }
    klock_release(&queue.lock);
}

void sched_unpause(struct domain *domain)
{
    klock_take(&queue.lock);
    domain->paused--;
    for (unsigned i = 0; i < domain->vcpu_count && domain->paused == 0; i++) {
        if (domain->vcpu[i]->state == VCPU_READY) {
            enqueue(domain->vcpu[i]);
        }
    }
    klock_release(&queue.lock);
}

bool sched_runs(struct domain *domain, const struct vcpu *self)
{
    bool runs = false;
    klock_take(&queue.lock);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        runs |= domain->vcpu[i] != self && domain->vcpu[i]->state == VCPU_RUNNING;
    }
    klock_release(&queue.lock);
    return runs;
}

void sched_off(struct domain *domain)
{
    klock_take(&queue.lock);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        if (domain->vcpu[i]->state != VCPU_RUNNING) {
            dequeue(domain->vcpu[i]);
            domain->vcpu[i]->state = VCPU_OFF;
        }
    }
    klock_release(&queue.lock);
}

/* --- Standing still --------------------------------------------------------------------------- */

bool world_stop(struct mm_ctx *ctx)
{
    if (!klock_try(&world.owner)) {
        return false;
    }
    __atomic_store_n(&world.standing, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&world.wanted, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        if (i != ctx->cpu) {
            __atomic_store_n(&cpu_at(i)->resched, 1, __ATOMIC_SEQ_CST);
            cpu_send(i, VECTOR_RESCHED);
        }
    }
    while (__atomic_load_n(&world.standing, __ATOMIC_ACQUIRE) < boot_info.cpus - 1) {
        port_relax(ctx);
    }
    return true;
}

void world_release(void)
{
    __atomic_store_n(&world.wanted, 0, __ATOMIC_RELEASE);
    while (__atomic_load_n(&world.standing, __ATOMIC_ACQUIRE) != 0) {
        cpu_pause();
    }
    klock_release(&world.owner);
}

void world_rest(struct mm_ctx *ctx)
{
    if (__atomic_load_n(&world.wanted, __ATOMIC_ACQUIRE)) {
        __atomic_fetch_add(&world.standing, 1, __ATOMIC_ACQ_REL);
        while (__atomic_load_n(&world.wanted, __ATOMIC_ACQUIRE)) {
            port_relax(ctx);
        }
        __atomic_fetch_sub(&world.standing, 1, __ATOMIC_ACQ_REL);
    }
}

/* --- Each CPU's loop -------------------------------------------------------------------------- */

void sched_run(void)
{
    struct percpu *cpu = this_cpu();
    for (;;) {
        __atomic_store_n(&cpu->resched, 0, __ATOMIC_SEQ_CST);
        world_rest(&cpu->ctx);
        __atomic_store_n(&cpu->ticked, 0, __ATOMIC_SEQ_CST);
        timers_expire();
        if (cpu->id == 0) {
            monitor_poll();
        }
        struct vcpu *vcpu = pick(cpu);
        if (vcpu == NULL) {
            cpu->doing[0] = CPU_IDLE;
            uint64_t rest = (top_pending() ? 1 : 4) * SCHED_SLICE_NS;
            uint64_t console = read_tsc() + ns_to_tsc(rest);
            uint64_t next = timers_next(cpu->id == 0 ? console : UINT64_MAX);
            timer_arm(next != UINT64_MAX ? next : 0);
            cpu_idle();
            continue;
        }
        cpu->current = vcpu;
        uint64_t began = read_tsc();
        vcpu_run(vcpu);
        vcpu->ran += read_tsc() - began;
        cpu->current = NULL;
        put_down(vcpu);
    }
}
