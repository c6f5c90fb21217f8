/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulated CPUs of host.h, here real ones: CPU 0 operates, the others wait for what it asks of
 * them and acknowledge flushes when they are kicked. CPU 0 waits until a request is done, so what
 * happens does not depend on time.
 */
#include "hvm.h"
#include "machine.h"
#include "platform.h"

#define FAULTS_MAX 64u

enum what { NOTHING, MAKE_GUEST, ENTER, LEAVE, ACCESS };

static struct request {
    uint32_t what;
    enum cleave_status status;
    struct space *space;
    uint64_t at, size;
    enum access access;
    void *buffer;
    struct vcpu_wait *wait;
    struct guest *guest;
    uint64_t accesses, faults;
} requests[SPEC_VCPUS];

/* --- On the CPU that is asked ----------------------------------------------------------------- */

static enum cleave_status access_page(struct mm_ctx *ctx, struct request *r)
{
    for (unsigned tries = 0; tries < FAULTS_MAX; tries++) {
        struct space *space = flush_running(ctx->cpu);
        if (space == NULL) {
            return CLEAVE_DYING;
        }
        if (guest_access(r->guest, space, r->at, r->access, r->buffer, r->size)) {
            r->accesses++;
            return CLEAVE_OK;
        }
        r->faults++;
        (void)flush_acknowledge(ctx);
        enum cleave_status status = space_fault(ctx, space, gpa(r->at), r->access, r->wait);
        (void)flush_acknowledge(ctx);
        if (status != CLEAVE_OK) {
            return status;
        }
    }
    crash("CPU %u faults at %lx (access %u) again and again", ctx->cpu, r->at, r->access);
}

static void serve(struct mm_ctx *ctx, struct request *r)
{
    switch ((enum what)__atomic_load_n(&r->what, __ATOMIC_ACQUIRE)) {
    case NOTHING:
        return;
    case MAKE_GUEST:
        guest_make(r->guest);
        break;
    case ENTER:
        r->status = flush_enter(ctx, r->space);
        break;
    case LEAVE:
        flush_leave(ctx);
        break;
    case ACCESS:
        r->status = access_page(ctx, r);
        break;
    }
    __atomic_store_n(&r->what, NOTHING, __ATOMIC_RELEASE);
}

_Noreturn void kernel_main_cpu(void)
{
    struct percpu *cpu = this_cpu();

    cpu->ctx.budget = UINT64_MAX;
    while (__atomic_load_n(&cpu->hvm_frame[0], __ATOMIC_ACQUIRE) == 0) {
        cpu_pause();
    }
    if (!hvm->cpu_enable(cpu)) {
        crash("CPU %u: %s cannot be turned on", cpu->id, hvm->name);
    }
    for (;;) {
        cpu->doing[0] = CPU_IDLE;
        cpu_idle();
        cpu->resched = 0;
        if (__atomic_exchange_n(&cpu->kicked, 0, __ATOMIC_SEQ_CST)) {
            (void)flush_acknowledge(&cpu->ctx);
        }
        serve(&cpu->ctx, &requests[cpu->id]);
    }
}

/* --- On CPU 0 --------------------------------------------------------------------------------- */

static enum cleave_status ask(unsigned cpu, enum what what)
{
    struct request *r = &requests[cpu];

    r->status = CLEAVE_OK;
    __atomic_store_n(&r->what, what, __ATOMIC_RELEASE);
    __atomic_store_n(&cpu_at(cpu)->resched, 1, __ATOMIC_SEQ_CST);
    cpu_send(cpu, VECTOR_RESCHED);
    while (__atomic_load_n(&r->what, __ATOMIC_ACQUIRE) != NOTHING) {
        cpu_pause();
    }
    return r->status;
}

void cpus_prepare(void)
{
    for (unsigned cpu = 1; cpu < SPEC_VCPUS; cpu++) {
        requests[cpu].guest = guest_take(cpu);
    }
}

void cpus_make_guests(void)
{
    for (unsigned cpu = 1; cpu < SPEC_VCPUS; cpu++) {
        requests[cpu].accesses = requests[cpu].faults = 0;
        (void)ask(cpu, MAKE_GUEST);
    }
}

void cpus_count(uint64_t *accesses, uint64_t *faults)
{
    for (unsigned cpu = 1; cpu < SPEC_VCPUS; cpu++) {
        *accesses += requests[cpu].accesses;
        *faults += requests[cpu].faults;
    }
}

enum cleave_status host_cpu_run(unsigned cpu, struct space *space)
{
    requests[cpu].space = space;
    return ask(cpu, ENTER);
}

void host_cpu_stop(unsigned cpu) { (void)ask(cpu, LEAVE); }

void host_cpu_set_wait(unsigned cpu, struct vcpu_wait *wait) { requests[cpu].wait = wait; }

/* The driver's accesses lie within a page each. */
enum cleave_status host_cpu_access(unsigned cpu, gpa_t at, enum access access, void *buffer,
                                   uint64_t size)
{
    struct request *r = &requests[cpu];

    MM_CHECK((at.v & (PAGE_SIZE - 1)) + size <= PAGE_SIZE);
    r->at = at.v;
    r->access = access;
    r->buffer = buffer;
    r->size = size;
    return ask(cpu, ACCESS);
}
