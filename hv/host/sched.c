/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Simulated CPUs as coroutines of one thread, and the enumeration of their schedules: a stateless
 * search that sets everything up again for each schedule and repeats the choices before the first
 * one that differs. A schedule is a list of the choices that differ from the default, which is: go
 * on with the CPU that runs; when it ends, the lowest; when it waits, the next in turn.
 */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "frame.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCHED_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SCHED_ASAN 1
#endif
#endif
#ifdef SCHED_ASAN
void __sanitizer_start_switch_fiber(void **save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *save, const void **bottom, size_t *size);
void __asan_unpoison_memory_region(void const volatile *at, size_t size);
#endif

#define STACK_BYTES (UINT64_C(1) << 20)
#define STEPS_MAX 2000000u /* choices of one schedule */
#define WAITS_MAX 20000u   /* waits in a row without a step */
#define MAIN HOST_SCHED_CPUS

/* One choice between several CPUs. */
struct choice {
    uint8_t options[HOST_SCHED_CPUS]; /* the default first */
    uint8_t count;
    uint8_t taken;   /* index into options */
    bool costs;      /* another than the first is a preemption */
    uint16_t before; /* preemptions before this choice */
};

static struct {
    struct host_sched *sched;
    ucontext_t context[HOST_SCHED_CPUS + 1];
    unsigned char *stack[HOST_SCHED_CPUS];
    void *fake_stack[HOST_SCHED_CPUS + 1];
    const void *main_bottom;
    size_t main_size;
    bool ended[HOST_SCHED_CPUS];
    bool in_guest[HOST_SCHED_CPUS]; /* not begun, or about to access guest memory */
    unsigned current;               /* MAIN outside */
    unsigned preemptions;
    uint32_t waits;
    struct choice *choices;
    uint32_t depth;  /* choices made in this run */
    uint32_t prefix; /* of these: repeated from the run before */
    const char *replay;
    uint64_t random; /* state; 0: not random */
    unsigned bound;
    bool failed;
} run;

bool sched_active(void) { return run.sched && run.current != MAIN; }
bool host_sched_running(void) { return sched_active(); }
void sched_diverge(void) { run.prefix = run.depth; }

bool sched_owns(unsigned cpu)
{
    return sched_active() && cpu < run.sched->cpus && !run.ended[cpu] && !run.in_guest[cpu];
}

/* --- Switching -------------------------------------------------------------------------------- */

static void switched_in(unsigned self)
{
#ifdef SCHED_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(run.fake_stack[self], &bottom, &size);
    if (run.main_size == 0) {
        run.main_bottom = bottom;
        run.main_size = size;
    }
#else
    (void)self;
#endif
}

/* Goes from the current context to `to`; comes back when somebody switches here again. `leaving`:
 * never. */
static void switch_to(unsigned to, bool leaving)
{
    unsigned from = run.current;
    run.current = to;
#ifdef SCHED_ASAN
    __sanitizer_start_switch_fiber(leaving ? NULL : &run.fake_stack[from],
                                   to == MAIN ? run.main_bottom : run.stack[to],
                                   to == MAIN ? run.main_size : STACK_BYTES);
#endif
    if (leaving) {
        setcontext(&run.context[to]);
    }
    swapcontext(&run.context[from], &run.context[to]);
    switched_in(from);
}

/* --- Choosing --------------------------------------------------------------------------------- */

static uint64_t next_random(void)
{
    uint64_t z = run.random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* What a replayed schedule says for choice number `step`; -1 for the default. */
static int replayed(uint32_t step)
{
    for (const char *s = run.replay; s && *s;) {
        char *end;
        unsigned long at = strtoul(s, &end, 10);
        unsigned long cpu = *end == ':' ? strtoul(end + 1, &end, 10) : MAIN;
        if (at == step) {
            return (int)cpu;
        }
        s = *end ? end + 1 : end;
    }
    return -1;
}

/* Index of the option that this run takes. */
static unsigned take_option(const struct choice *c, uint32_t step)
{
    bool may = !c->costs || c->before < run.bound;

    if (run.replay) {
        int cpu = replayed(step);
        for (unsigned i = 0; i < c->count; i++) {
            if (c->options[i] == cpu) {
                return i;
            }
        }
        return 0;
    }
    if (run.random) {
        return may && next_random() % (c->costs ? 12 : 2) == 0
                   ? (unsigned)(next_random() % c->count)
                   : 0;
    }
    return 0;
}

/* Chooses the CPU to go on with. The first option is the current one if it can go on (`costs`). */
static unsigned choose(const uint8_t *options, unsigned count, bool costs)
{
    if (count == 1) {
        return options[0];
    }
    if (run.depth == STEPS_MAX) {
        sched_fail("this schedule does not end");
    }
    struct choice *c = &run.choices[run.depth];
    if (run.depth >= run.prefix) {
        *c = (struct choice){.count = (uint8_t)count, .costs = costs};
        c->before = (uint16_t)run.preemptions;
        memcpy(c->options, options, count);
        c->taken = (uint8_t)take_option(c, run.depth);
    } else if (c->count != count || memcmp(c->options, options, count) != 0) {
        sched_fail("the test is not deterministic: a repeated schedule meets another choice");
    }
    run.depth++;
    run.preemptions += c->costs && c->taken != 0;
    return c->options[c->taken];
}

/* CPUs that have not ended, from `first` upwards; `first` only if `with`. */
static unsigned list_others(uint8_t *out, unsigned first, bool with)
{
    unsigned count = 0;
    if (with) {
        out[count++] = (uint8_t)first;
    }
    for (unsigned i = 0; i < run.sched->cpus; i++) {
        if (i != first && !run.ended[i]) {
            out[count++] = (uint8_t)i;
        }
    }
    return count;
}

void sched_point(enum port_point point)
{
    uint8_t options[HOST_SCHED_CPUS];

    run.waits = 0;
    if (run.sched->points && point != POINT_END && !(run.sched->points & 1u << point)) {
        return;
    }
    unsigned next = choose(options, list_others(options, run.current, true), true);
    if (next != run.current) {
        switch_to(next, false);
    }
}

void host_sched_yield(void)
{
    if (sched_active()) {
        sched_point(POINT_END);
    }
}

void sched_guest_point(void)
{
    if (sched_active()) {
        unsigned self = run.current;
        run.in_guest[self] = true;
        sched_point(POINT_END);
        run.in_guest[self] = false;
    }
}

void sched_wait(void)
{
    if (++run.waits > WAITS_MAX) {
        sched_fail("deadlock: every CPU waits");
    }
    for (unsigned i = 1; i < run.sched->cpus; i++) {
        unsigned next = (run.current + i) % run.sched->cpus;
        if (!run.ended[next]) {
            switch_to(next, false);
            return;
        }
    }
}

/* --- One schedule ----------------------------------------------------------------------------- */

/* The schedule of this run, as host_sched_replay() takes it. */
static void print_schedule(char *out)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < run.depth && used < HOST_SCHED_TEXT - 24; i++) {
        const struct choice *c = &run.choices[i];
        if (c->taken != 0) {
            used += (size_t)snprintf(out + used, HOST_SCHED_TEXT - used, "%s%u:%u", used ? "," : "",
                                     i, c->options[c->taken]);
        }
    }
}

static void note_failure(const char *text)
{
    run.failed = true;
    print_schedule(run.sched->failed);
    if (run.sched->failed[0] == '\0') {
        strcpy(run.sched->failed, "plain");
    }
    snprintf(run.sched->why, sizeof(run.sched->why), "%s", text);
}

void sched_fail(const char *text)
{
    note_failure(text);
    switch_to(MAIN, true);
    abort(); /* not reached */
}

void host_sched_leave(void)
{
    uint8_t options[HOST_SCHED_CPUS];
    unsigned self = run.current;
    struct mm_ctx *ctx = host_ctx(self);

    if (ctx->lock_depth != 0) {
        return;
    }
    run.ended[self] = true;
    run.waits = 0;
    host_poll(ctx); /* idle from now on */
    unsigned count = list_others(options, self, false);
    switch_to(count == 0 ? MAIN : choose(options, count, false), true);
    abort(); /* not reached */
}

static void coroutine(void)
{
    unsigned self = run.current;

    switched_in(self);
    run.in_guest[self] = false;
    run.sched->body[self](host_ctx(self), run.sched->arg);
    host_sched_leave();
    host_fail("CPU %u ended with %u locks held", self, host_ctx(self)->lock_depth);
}

static void make_coroutine(unsigned cpu)
{
    run.ended[cpu] = false;
    run.in_guest[cpu] = true;
    run.fake_stack[cpu] = NULL;
#ifdef SCHED_ASAN
    __asan_unpoison_memory_region(run.stack[cpu], STACK_BYTES);
#endif
    getcontext(&run.context[cpu]);
    run.context[cpu].uc_stack.ss_sp = run.stack[cpu];
    run.context[cpu].uc_stack.ss_size = STACK_BYTES;
    run.context[cpu].uc_link = NULL;
    makecontext(&run.context[cpu], coroutine, 0);
}

/* Runs one schedule; true when it passed. */
static bool run_once(void)
{
    uint8_t options[HOST_SCHED_CPUS];

    run.current = MAIN;
    run.depth = 0;
    run.preemptions = 0;
    run.waits = 0;
    run.failed = false;
    run.sched->setup(run.sched->arg);
    for (unsigned i = 0; i < run.sched->cpus; i++) {
        make_coroutine(i);
    }
    switch_to(choose(options, list_others(options, 0, true), false), false);
    if (host_watched) {
        host_watched->schedule_ended(run.failed ? run.sched->why : NULL, run.sched->quiet);
    }
    if (!run.failed && run.sched->check && !run.sched->check(run.sched->arg)) {
        note_failure("the check at the end did not hold");
    }
    return !run.failed;
}

/* --- The search ------------------------------------------------------------------------------- */

/* Turns the last choice that has an untried option within the bound; false when there is none. */
static bool next_schedule(void)
{
    for (uint32_t i = run.depth; i-- > 0;) {
        struct choice *c = &run.choices[i];
        if (c->taken + 1u < c->count && (!c->costs || c->before < run.bound)) {
            c->taken++;
            run.prefix = i + 1;
            return true;
        }
    }
    return false;
}

static bool report(bool passed)
{
    if (!passed && !run.sched->quiet) {
        fflush(stdout);
        fprintf(stderr, "schedule \"%s\" (number %" PRIu64 ") fails: %s\n", run.sched->failed,
                run.sched->schedules, run.sched->why);
        host_log_print(40);
    }
    return passed;
}

static void search_begin(struct host_sched *sched)
{
    if (sched->cpus == 0 || sched->cpus > HOST_SCHED_CPUS || sched->cpus > MM_MAX_CPUS) {
        host_fail("host_sched: %u CPUs, not 1 to %u", sched->cpus, HOST_SCHED_CPUS);
    }
    memset(&run, 0, sizeof(run));
    run.sched = sched;
    run.current = MAIN;
    run.bound = sched->max_preemptions;
    run.choices = calloc(STEPS_MAX, sizeof(*run.choices));
    for (unsigned i = 0; i < sched->cpus; i++) {
        run.stack[i] = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (run.stack[i] == MAP_FAILED || !run.choices) {
            host_fail("host_sched: no memory for the stacks");
        }
    }
    sched->schedules = 0;
    sched->complete = false;
    sched->failed[0] = sched->why[0] = '\0';
}

static bool search_end(bool passed)
{
    report(passed);
    for (unsigned i = 0; i < run.sched->cpus; i++) {
        (void)munmap(run.stack[i], STACK_BYTES);
    }
    free(run.choices);
    run.sched = NULL;
    return passed;
}

static bool search_random(struct host_sched *sched)
{
    for (uint64_t i = 0; i < sched->random; i++) {
        run.random = (sched->seed + i + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        run.prefix = 0;
        sched->schedules++;
        if (!run_once()) {
            return false;
        }
    }
    return true;
}

/* All schedules with exactly run.bound preemptions and those with fewer, which are not counted. */
static bool search_bound(struct host_sched *sched)
{
    run.prefix = 0;
    do {
        if (sched->max_schedules && sched->schedules == sched->max_schedules) {
            sched->complete = false;
            return true;
        }
        bool passed = run_once();
        sched->schedules += run.preemptions == run.bound || !passed;
        if (!passed) {
            return false;
        }
    } while (next_schedule());
    return true;
}

bool host_sched_explore(struct host_sched *sched)
{
    search_begin(sched);
    if (sched->random) {
        return search_end(search_random(sched));
    }
    sched->complete = true;
    for (run.bound = 0; run.bound <= sched->max_preemptions && sched->complete; run.bound++) {
        if (!search_bound(sched)) {
            sched->complete = false;
            return search_end(false);
        }
    }
    return search_end(true);
}

bool host_sched_replay(struct host_sched *sched, const char *schedule)
{
    char text[HOST_SCHED_TEXT]; /* `schedule` may be sched->failed, which is cleared */

    snprintf(text, sizeof(text), "%s", schedule);
    search_begin(sched);
    run.replay = text;
    sched->schedules = 1;
    return search_end(run_once());
}
