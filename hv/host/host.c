/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulated machine and what the core asks of it (port.h). The machine is made and taken down
 * by one thread; counters belong to the thread that counts.
 */
#include "model.h"

#include <execinfo.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "frame.h"

#define HOST_THREADS 512u /* more share the last slot */
#define RELAX_LIMIT (UINT64_C(1) << 22)
#define STEP_LIMIT UINT64_C(10000000)
#define HUGE_BACKING (UINT64_C(1) << 21)

struct host_state host;
struct host_kick host_kicks[MM_MAX_CPUS];
const struct host_watch *host_watched;

/* What host_start() mapped, and how far host_take() has come. */
static struct {
    void *map, *descriptors;
    uint64_t map_bytes, descriptor_bytes;
    uint64_t next;
} ram;

static struct host_thread threads[HOST_THREADS] __attribute__((aligned(64)));
static uint32_t threads_used;
static uint64_t seed_base;

static struct {
    void (*wake)(struct vcpu_wait *wait, void *arg);
    void *wake_arg;
    void (*starved)(struct space *space, void *arg);
    void *starved_arg;
} callback;

static struct {
    bool counting;
    bool fired;
    uint64_t seen;
    uint64_t at;
} refusal;

static struct {
    bool armed;
    jmp_buf back;
    char text[512];
} panic;

/* --- Counters --------------------------------------------------------------------------------- */

static _Thread_local struct host_thread *mine;

struct host_thread *host_thread(void)
{
    if (__builtin_expect(!mine, 0)) {
        uint32_t n = __atomic_fetch_add(&threads_used, 1, __ATOMIC_RELAXED);
        mine = &threads[n < HOST_THREADS ? n : HOST_THREADS - 1];
        mine->random = seed_base + n;
    }
    return mine;
}

uint32_t host_threads(void) { return __atomic_load_n(&threads_used, __ATOMIC_RELAXED); }

struct host_counters host_counters(void)
{
    struct host_counters sum = {0};
    for (uint32_t i = 0; i < HOST_THREADS; i++) {
        const struct host_counters *c = &threads[i].counters;
        sum.bytes_copied += c->bytes_copied;
        sum.bytes_zeroed += c->bytes_zeroed;
        sum.copies += c->copies;
        sum.kicks += c->kicks;
        sum.flushes += c->flushes;
        sum.wakes += c->wakes;
        sum.starved += c->starved;
        sum.accesses += c->accesses;
        sum.faults += c->faults;
        sum.stale += c->stale;
    }
    return sum;
}

void host_reset_counters(void)
{
    for (uint32_t i = 0; i < HOST_THREADS; i++) {
        threads[i].counters = (struct host_counters){0};
    }
}

void host_seed(uint64_t seed)
{
    seed_base = seed;
    for (uint32_t i = 0; i < HOST_THREADS; i++) {
        threads[i].random = seed + i;
    }
}

/* --- Machine ---------------------------------------------------------------------------------- */

static void *map_bytes(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        perror("host_start: mmap");
        fprintf(stderr, "host_start: %" PRIu64 " bytes of address space are not to be had\n",
                bytes);
        exit(1);
    }
    return p;
}

static void map_machine(const struct host_options *o)
{
    uint64_t bytes = o->frames << PAGE_SHIFT;

    ram.map_bytes = bytes + HUGE_BACKING;
    ram.map = map_bytes(ram.map_bytes);
    ram.descriptor_bytes = machine_descriptor_bytes(o->frames);
    ram.descriptors = map_bytes(ram.descriptor_bytes);
    ram.next = 1; /* frame 0 is nobody's */
    (void)madvise(ram.map, ram.map_bytes, o->backing_huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    (void)madvise(ram.descriptors, ram.descriptor_bytes,
                  o->backing_huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

static void reset_switches(const struct host_options *o)
{
    memset(&host, 0, sizeof(host));
    memset(host_kicks, 0, sizeof(host_kicks));
    memset(&callback, 0, sizeof(callback));
    memset(&refusal, 0, sizeof(refusal));
#ifdef MM_HOOKS
    host.tlb = host.log = host.poison = true;
#endif
    host.zero_by_kernel = o->zero_by_kernel;
    host.npt = strcmp(o->format->name, "NPT") == 0;
    host.mode = HOST_TLB_STALE;
    host.speculation = HOST_SPECULATE_RECENT;
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        host.ctx[i].cpu = i;
        host.ctx[i].budget = UINT64_MAX;
    }
    host_on_point(NULL, NULL);
    host_reset_counters();
    host_seed(0);
    monitor_reset();
    tlb_reset();
    cpu_reset();
}

void host_start(const struct host_options *options)
{
    struct host_options o = options ? *options : (struct host_options){0};

    host_stop();
    o.frames = o.frames ? o.frames : 65536;
    o.cpus = o.cpus ? o.cpus : MM_MAX_CPUS < 4 ? MM_MAX_CPUS : 4;
    o.format = o.format ? o.format : &ept_format;
    reset_switches(&o);
    map_machine(&o);
    uintptr_t direct = ((uintptr_t)ram.map + HUGE_BACKING - 1) & ~(uintptr_t)(HUGE_BACKING - 1);
    enum cleave_status status = machine_init(&host.ctx[0], (void *)direct, o.frames,
                                             ram.descriptors, o.format, o.cpus, o.huge_exec);
    if (status != CLEAVE_OK) {
        fprintf(stderr, "host_start: %s = %" PRIu64 "\n", host.ctx[0].error.argument,
                host.ctx[0].error.value);
        exit(1);
    }
    host.started = true;
}

void host_stop(void)
{
    if (!host.started) {
        return;
    }
    if (host_watched) {
        host_watched->machine_ends();
    }
    for (unsigned i = 0; i < machine.cpus; i++) {
        if (flush_running(i)) {
            host.ctx[i].lock_depth = 0;
            flush_leave(&host.ctx[i]);
        }
    }
    host.started = false;
    tlb_reset();
    (void)munmap(ram.map, ram.map_bytes);
    (void)munmap(ram.descriptors, ram.descriptor_bytes);
}

struct mm_ctx *host_ctx(unsigned cpu) { return &host.ctx[cpu]; }

pfn_t host_take(uint64_t pages, unsigned order)
{
    uint64_t align = level_pages(order);
    uint64_t start = (ram.next + align - 1) / align * align;

    if (pages > machine.frames || start > machine.frames - pages) {
        host_fail("host_take: %" PRIu64 " of %" PRIu64 " frames are not left", pages,
                  machine.frames);
    }
    ram.next = start + pages;
    return pfn((uint32_t)start);
}

struct pool *host_pool(uint64_t bytes)
{
    uint64_t pages = bytes >> PAGE_SHIFT;
    pfn_t start = host_take(pages, pages >= level_pages(2) ? 2 : 1);
    struct pool *pool = NULL;
    enum cleave_status status = pool_create(&host.ctx[0], start, pfn_add(start, pages), &pool);

    if (status != CLEAVE_OK) {
        if (host_watched) {
            host_watched->machine_ends();
        }
        host_fail("host_pool: pool_create of %" PRIu64 " bytes: status %d", bytes, (int)status);
    }
    return pool;
}

/* --- Failure injection ------------------------------------------------------------------------ */

void host_fail_allocation(uint64_t k)
{
    refusal.counting = true;
    refusal.fired = false;
    refusal.seen = 0;
    refusal.at = k;
}

uint64_t host_allocations(void) { return refusal.seen; }
bool host_allocation_failed(void) { return refusal.fired; }

void host_watch(const struct host_watch *watch) { host_watched = watch; }
bool host_started(void) { return host.started; }
bool host_threaded(void) { return host_threads() > 1; }

bool port_refuse_allocation(void)
{
    bool refuse = false;

    if (__builtin_expect(refusal.counting, 0)) {
        refuse = __atomic_add_fetch(&refusal.seen, 1, __ATOMIC_RELAXED) == refusal.at;
    }
    if (__builtin_expect(host_watched != NULL, 0) && !refuse && host_watched->refuse()) {
        sched_diverge();
        refuse = true;
    }
    if (__builtin_expect(refuse, 0)) {
        refusal.fired = true;
    }
    return refuse;
}

uint64_t host_run_preempted(struct mm_ctx *ctx, host_step_t *step, void *arg, uint64_t every,
                            enum cleave_status *status)
{
    uint64_t calls = 0;
    enum cleave_status s;

    do {
        ctx->budget = every;
        s = step(ctx, arg);
        if (++calls == STEP_LIMIT) {
            host_fail("no progress: still CLEAVE_AGAIN after %" PRIu64 " calls with a budget of"
                      " %" PRIu64,
                      calls, every);
        }
    } while (s == CLEAVE_AGAIN);
    ctx->budget = UINT64_MAX;
    if (status) {
        *status = s;
    }
    return calls;
}

/* --- Failures --------------------------------------------------------------------------------- */

const char *host_panic_text(void) { return panic.text; }

/* Ends the run, the schedule or the expectation with panic.text. */
static _Noreturn void fail_now(void)
{
    if (sched_active()) {
        sched_fail(panic.text);
    }
    if (panic.armed) {
        panic.armed = false;
        longjmp(panic.back, 1);
    }
    fflush(stdout);
    fprintf(stderr, "%s\n", panic.text);
    host_log_print(24);
    void *frames[48];
    backtrace_symbols_fd(frames, backtrace(frames, 48), 2);
    abort();
}

void host_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(panic.text, sizeof(panic.text), format, arguments);
    va_end(arguments);
    fail_now();
}

void port_panic(const char *file, int line, const char *what)
{
    host_fail("panic: %s:%d: %s", file, line, what);
}

bool host_expect_panic(void (*fn)(void *arg), void *arg)
{
    panic.text[0] = '\0';
    if (setjmp(panic.back) == 0) {
        panic.armed = true;
        fn(arg);
        panic.armed = false;
        return false;
    }
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        host.ctx[i].lock_depth = 0;
    }
    return true;
}

void host_check_locks(void)
{
    for (unsigned i = 0; i < machine.cpus; i++) {
        if (host.ctx[i].lock_depth != 0) {
            host_fail("CPU %u still holds %u locks, the last of rank %u", i, host.ctx[i].lock_depth,
                      host.ctx[i].lock_ranks[host.ctx[i].lock_depth - 1]);
        }
    }
}

/* --- Port: memory ----------------------------------------------------------------------------- */

static uint64_t frame_number(const void *p)
{
    return (uint64_t)((const unsigned char *)p - machine.direct_map) >> PAGE_SHIFT;
}

void port_copy_pages(void *to, const void *from, uint64_t pages)
{
    struct host_counters *c = &host_thread()->counters;

    c->copies++;
    c->bytes_copied += pages << PAGE_SHIFT;
    memcpy(to, from, pages << PAGE_SHIFT);
    if (host.log) {
        monitor_record(HOST_COPY, HOST_NO_CPU, frame_number(to), pages);
    }
}

void port_zero_pages(void *to, uint64_t pages)
{
    host_thread()->counters.bytes_zeroed += pages << PAGE_SHIFT;
    if (host.zero_by_kernel && pages >= level_pages(1)) {
        (void)madvise(to, pages << PAGE_SHIFT, MADV_DONTNEED);
    } else {
        memset(to, 0, pages << PAGE_SHIFT);
    }
    if (host.log) {
        monitor_record(HOST_ZERO, HOST_NO_CPU, frame_number(to), pages);
    }
}

uint64_t port_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

uint64_t port_random(void)
{
    uint64_t z = host_thread()->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* --- Port: translations ----------------------------------------------------------------------- */

void port_flush_local(struct mm_ctx *ctx, pfn_t tag)
{
    host_thread()->counters.flushes++;
    if (host.tlb) {
        tlb_flush(ctx->cpu, tag);
    }
    if (host.log) {
        monitor_record(HOST_FLUSH, ctx->cpu, tag.v, 0);
    }
}

void port_kick(struct mm_ctx *ctx, unsigned cpu)
{
    host_thread()->counters.kicks++;
    if (host.log) {
        monitor_record(HOST_KICK, ctx->cpu, cpu, 0);
    }
    __atomic_store_n(&host_kicks[cpu].pending, 1, __ATOMIC_RELEASE);
}

void host_acknowledge(struct mm_ctx *ctx)
{
    /* Only one of several that acknowledge for a passive CPU does it. */
    if (__atomic_exchange_n(&host_kicks[ctx->cpu].pending, 0, __ATOMIC_ACQ_REL)) {
        if (host.log) {
            monitor_record(HOST_ACKNOWLEDGE, ctx->cpu, 0, 0);
        }
        flush_acknowledge(ctx);
        tlb_load_root(ctx->cpu);
    }
}

void host_cpu_attach(unsigned cpu)
{
    __atomic_store_n(&host_kicks[cpu].attached, 1, __ATOMIC_SEQ_CST);
}

void host_cpu_detach(unsigned cpu)
{
    __atomic_store_n(&host_kicks[cpu].attached, 0, __ATOMIC_SEQ_CST);
    host_poll(&host.ctx[cpu]);
}

static bool acknowledges_itself(unsigned cpu)
{
    return __atomic_load_n(&host_kicks[cpu].attached, __ATOMIC_ACQUIRE) || sched_owns(cpu);
}

void port_relax(struct mm_ctx *ctx)
{
    static _Thread_local uint64_t waited;
    bool arrived = false;
    bool alone = host_threads() <= 1;

    host_poll(ctx);
    for (unsigned i = 0; i < machine.cpus; i++) {
        if (i == ctx->cpu) {
            continue;
        }
        if (acknowledges_itself(i)) {
            alone = false;
        } else if (__atomic_load_n(&host_kicks[i].pending, __ATOMIC_ACQUIRE)) {
            host_acknowledge(&host.ctx[i]);
            waited = 0;
            arrived = true;
        }
    }
    if (arrived) {
        return;
    }
    if (sched_active()) {
        sched_wait();
        return;
    }
    waited++;
    if (waited % 64 == 0) {
        sched_yield(); /* there may be more threads than processors */
    }
    __builtin_ia32_pause();
    if (alone && waited > RELAX_LIMIT) {
        waited = 0;
        host_fail("CPU %u waits for ever: nobody is left who could let it go on", ctx->cpu);
    }
}

/* --- Port: waiters ---------------------------------------------------------------------------- */

void host_on_wake(void (*fn)(struct vcpu_wait *wait, void *arg), void *arg)
{
    callback.wake = fn;
    callback.wake_arg = arg;
}

void host_on_starved(void (*fn)(struct space *space, void *arg), void *arg)
{
    callback.starved = fn;
    callback.starved_arg = arg;
}

void port_wake(struct vcpu_wait *wait)
{
    host_thread()->counters.wakes++;
    if (host.log) {
        monitor_record(HOST_WAKE, HOST_NO_CPU, wait->vcpu, 0);
    }
    if (callback.wake) {
        callback.wake(wait, callback.wake_arg);
    }
}

void port_starved(struct space *space)
{
    host_thread()->counters.starved++;
    if (host.log) {
        monitor_record(HOST_STARVED, HOST_NO_CPU, space->id, 0);
    }
    if (callback.starved) {
        callback.starved(space, callback.starved_arg);
    }
}
