/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Simulated CPUs: entering and leaving guests, and a guest's accesses with the exits for faults.
 * Each CPU is used by one thread or coroutine at a time.
 */
#include "model.h"

#include <inttypes.h>
#include <string.h>

#include "frame.h"

#define FAULTS_MAX 64u

static struct vcpu_wait *waits[MM_MAX_CPUS];

void cpu_reset(void) { memset(waits, 0, sizeof(waits)); }

enum cleave_status host_cpu_run(unsigned cpu, struct space *space)
{
    enum cleave_status status = flush_enter(&host.ctx[cpu], space);

    tlb_load_root(cpu);
    if (status == CLEAVE_OK) {
        monitor_record(HOST_ENTER, cpu, space->root.v, 0);
    }
    return status;
}

void host_cpu_stop(unsigned cpu)
{
    if (flush_running(cpu)) {
        flush_leave(&host.ctx[cpu]);
        monitor_record(HOST_LEAVE, cpu, 0, 0);
    }
    tlb_load_root(cpu);
}

void host_cpu_set_wait(unsigned cpu, struct vcpu_wait *wait) { waits[cpu] = wait; }

static unsigned right_of(enum access access)
{
    switch (access) {
    case ACCESS_READ:
        return RIGHT_READ;
    case ACCESS_WRITE:
        return RIGHT_WRITE;
    case ACCESS_EXEC:
        return RIGHT_EXEC;
    }
    return RIGHT_ALL;
}

static void move_bytes(uint64_t frame, uint64_t offset, enum access access, void *buffer,
                       uint64_t size)
{
    unsigned char *at = machine.direct_map + (frame << PAGE_SHIFT) + offset;

    if (frame >= machine.frames) {
        if (buffer && access != ACCESS_WRITE) {
            memset(buffer, 0xff, size); /* a device that nobody plays */
        }
    } else if (access == ACCESS_WRITE) {
        memcpy(at, buffer, size);
    } else if (buffer) {
        memcpy(buffer, at, size);
    }
}

/* Leaves the guest and comes back: acknowledges and loads the root again. */
static void pass_exit(unsigned cpu)
{
    flush_acknowledge(&host.ctx[cpu]);
    tlb_load_root(cpu);
}

static enum cleave_status take_fault(unsigned cpu, uint64_t at, enum access access)
{
    struct mm_ctx *ctx = &host.ctx[cpu];
    struct space *space = flush_running(cpu);

    host_thread()->counters.faults++;
    monitor_record(HOST_FAULT, cpu, at, access);
    pass_exit(cpu);
    enum cleave_status status = space_fault(ctx, space, gpa(at), access, waits[cpu]);
    if (ctx->lock_depth != 0) {
        host_fail("space_fault() returned %d with %u locks held", (int)status, ctx->lock_depth);
    }
    pass_exit(cpu);
    return status;
}

/* Accesses bytes that lie in one page. */
static enum cleave_status access_page(unsigned cpu, uint64_t at, enum access access, void *buffer,
                                      uint64_t size)
{
    for (unsigned tries = 0; tries < FAULTS_MAX; tries++) {
        sched_guest_point();
        if (!flush_running(cpu)) {
            return CLEAVE_DYING;
        }
        uint64_t frame = 0;
        model_lock();
        bool passes = tlb_translate(cpu, at >> PAGE_SHIFT, right_of(access), &frame);
        if (passes) {
            move_bytes(frame, at & (PAGE_SIZE - 1), access, buffer, size);
        }
        model_unlock();
        if (passes) {
            host_thread()->counters.accesses++;
            host_poll(&host.ctx[cpu]); /* a kick arrives after one more access, not before */
            return CLEAVE_OK;
        }
        enum cleave_status status = take_fault(cpu, at, access);
        if (status != CLEAVE_OK) {
            return status;
        }
    }
    host_fail("livelock: CPU %u faults at %#" PRIx64 " (access %d) again and again", cpu, at,
              (int)access);
}

enum cleave_status host_cpu_access(unsigned cpu, gpa_t at, enum access access, void *buffer,
                                   uint64_t size)
{
    unsigned char *bytes = buffer;

    for (uint64_t done = 0; done < size;) {
        uint64_t room = PAGE_SIZE - ((at.v + done) & (PAGE_SIZE - 1));
        uint64_t part = size - done < room ? size - done : room;
        enum cleave_status status =
            access_page(cpu, at.v + done, access, bytes ? bytes + done : NULL, part);
        if (status != CLEAVE_OK) {
            return status;
        }
        done += part;
    }
    return CLEAVE_OK;
}

enum cleave_status host_cpu_read(unsigned cpu, gpa_t at, void *to, uint64_t size)
{
    return host_cpu_access(cpu, at, ACCESS_READ, to, size);
}

enum cleave_status host_cpu_write(unsigned cpu, gpa_t at, const void *from, uint64_t size)
{
    return host_cpu_access(cpu, at, ACCESS_WRITE, (void *)(uintptr_t)from, size);
}
