/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs the shards of the randomized tests, each episode in a process of its own on the hosted port,
 * and looks for fewer steps that fail as well. */
#include "driver.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"
#include "test.h"

static struct world *current;   /* for what ends the process from within the core */
static unsigned char *left_out; /* by step: not to be run */

/* Counts of all episodes. */
struct spec_sum {
    uint64_t applied, refused, exhausted, resized;
};

/* --- The machine ------------------------------------------------------------------------------ */

static void on_wake(struct vcpu_wait *wait, void *arg) { spec_woken(arg, wait); }

void spec_start_machine(struct world *w, uint64_t blocks)
{
    const struct spec_shard *shard = w->shard;
    uint64_t most = shard->resize != 0 ? shard->most_blocks : blocks;

    host_start(&(struct host_options){.frames = (most + 3 * TABLE_ENTRIES) * level_pages(1),
                                      .cpus = SPEC_VCPUS,
                                      .format = shard->npt ? &npt_format : &ept_format,
                                      .huge_exec = shard->huge_exec});
    host_seed(w->seed);
    host_enable_tlb(true);
    host_log_enable(false);
    host_on_wake(on_wake, w);
    w->ctx = host_ctx(0);
    w->device = host_take(level_pages(1), 1);
    w->pool = host_pool(blocks * level_size(1));
}

void spec_stop_machine(void) { host_stop(); }

void spec_check_machine(void)
{
    host_tlb_check();
    host_check_locks();
}

/* Also called on the way out after a signal: what is printed may be lost, no more. */
/* NOLINTBEGIN(bugprone-signal-handler) */
static void say_how_to_repeat(const struct world *w)
{
    printf("  repeat with CLEAVE_EPISODE=0x%" PRIx64 "\n", w->seed);
}

void spec_stop(int kind)
{
    if (current && !spec_quiet) {
        say_how_to_repeat(current);
    }
    fflush(NULL);
    _exit(kind);
}

/* The core or the model stopped the process: say where the run was. */
static void on_signal(int number)
{
    struct world *w = current;
    current = NULL;
    if (w && !spec_quiet) {
        spec_print_log(w);
        say_how_to_repeat(w);
        fflush(stdout);
    }
    signal(number, SIG_DFL);
    raise(number);
}
/* NOLINTEND(bugprone-signal-handler) */

static void run_episode(const struct spec_shard *shard, uint64_t seed, unsigned steps,
                        unsigned whole, struct spec_sum *sum)
{
    static struct world world;
    struct world *w = &world;

    current = w;
    spec_begin(w, shard, seed);
    for (w->step = 1; w->step <= steps; w->step++) {
        if (!left_out || !left_out[w->step]) {
            spec_step(w, whole);
        }
    }
    spec_finish(w);
    sum->applied += w->applied;
    sum->refused += w->refused;
    sum->exhausted += w->exhausted;
    sum->resized += w->resized;
    current = NULL;
}

/* --- Fewer steps that fail as well ------------------------------------------------------------ */

/* Runs an episode in a process of its own. How it ended; 0 is well. */
static int outcome(const struct spec_shard *shard, uint64_t seed, unsigned steps, unsigned whole,
                   bool silent, struct spec_sum *sum)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();

    if (child == 0) {
        spec_quiet = silent;
        run_episode(shard, seed, steps, whole, sum);
        fflush(NULL);
        _exit(0);
    }
    return child < 0 || waitpid(child, &status, 0) != child ? -1 : status;
}

#define SHRINK_SECONDS 20 /* or what CLEAVE_SHRINK says */

/* Leaves out as many steps as it can in some seconds, and shows what is left failing. */
static void shrink(const struct spec_shard *shard, uint64_t seed, unsigned steps, unsigned whole,
                   int how, struct spec_sum *sum)
{
    const char *limit = getenv("CLEAVE_SHRINK");
    time_t end = time(NULL) + (limit ? strtol(limit, NULL, 10) : SHRINK_SECONDS);
    unsigned kept = steps;

    left_out = calloc(steps + 1, 1);
    for (unsigned size = steps / 2; left_out && size > 0; size /= 2) {
        for (unsigned first = 1; first <= steps && time(NULL) < end; first += size) {
            unsigned last = first + size - 1 < steps ? first + size - 1 : steps;
            unsigned char *before = malloc(steps + 1);
            unsigned less = 0;
            if (!before) {
                return;
            }
            memcpy(before, left_out, steps + 1);
            for (unsigned i = first; i <= last; i++) {
                less += !left_out[i];
                left_out[i] = 1;
            }
            if (less > 0 && outcome(shard, seed, steps, whole, true, sum) == how) {
                kept -= less;
            } else {
                memcpy(left_out, before, steps + 1);
            }
            free(before);
        }
    }
    printf("  the same with %u steps: CLEAVE_EPISODE=0x%" PRIx64 " CLEAVE_STEPS=", kept, seed);
    for (unsigned i = 1; left_out && i <= steps; i++) {
        if (!left_out[i]) {
            printf("%u,", i);
        }
    }
    printf("\n");
    (void)outcome(shard, seed, steps, whole, false, sum);
}

/* Steps of this build in a hundred of all builds that a whole check runs. */
static unsigned share(void)
{
    static const struct {
        const char *variant;
        unsigned percent;
    } shares[] = {{"gcc-release", 36},
                  {"clang-release", 36},
                  {"gcc-debug", 12},
                  {"clang-debug", 12},
                  {"clang-asan", 4}};

    for (unsigned i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        if (strncmp(TEST_VARIANT, shares[i].variant, strlen(shares[i].variant)) == 0) {
            return shares[i].percent;
        }
    }
    return 100;
}

/* CLEAVE_STEPS="3,17,40": the steps of the episode that are to be run. */
static void choose_steps(unsigned steps)
{
    const char *text = getenv("CLEAVE_STEPS");
    left_out = text ? malloc(steps + 1) : NULL;
    if (!left_out) {
        return;
    }
    memset(left_out, 1, steps + 1);
    while (*text) {
        char *end;
        unsigned long step = strtoul(text, &end, 10);
        if (step > 0 && step <= steps) {
            left_out[step] = 0;
        }
        text = *end ? end + 1 : end;
    }
}

#define ALLOC_STEPS 600u /* each is run once for every allocation before it */

static struct spec_sum *begin(const struct spec_shard *shard)
{
    struct spec_sum *sum =
        mmap(NULL, sizeof(*sum), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(sum != MAP_FAILED);

    spec_only = getenv("CLEAVE_OPS");
    choose_steps(shard->episode);
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    return sum;
}

/* Runs an episode, which must end well. */
static void require_episode(const struct spec_shard *shard, uint64_t seed, unsigned steps,
                            unsigned whole, struct spec_sum *sum)
{
    int how = 0;
    if (getenv("CLEAVE_TEST_NOFORK") != NULL) {
        run_episode(shard, seed, steps, whole, sum);
    } else {
        how = outcome(shard, seed, steps, whole, false, sum);
    }
    if (how != 0 && !left_out) {
        shrink(shard, seed, steps, whole, how, sum);
    }
    REQUIRE(how == 0);
}

void spec_run(const struct spec_shard *shard, unsigned whole)
{
    uint64_t steps =
        alloc_running() ? ALLOC_STEPS : test_steps((uint64_t)shard->steps * 10 * share());
    uint64_t seed = test_seed() ^ spec_hash(TEST_VARIANT) ^ spec_hash(shard->label);
    const char *one = getenv("CLEAVE_EPISODE");
    struct spec_sum *sum = begin(shard);

    for (uint64_t done = 0; done < steps;) {
        uint64_t episode = one ? strtoull(one, NULL, 0) : test_random(&seed);
        uint64_t left = one ? shard->episode : steps - done;
        unsigned now = left < shard->episode ? (unsigned)left : shard->episode;
        done = one ? steps : done + now;
        require_episode(shard, episode, now, whole, sum);
    }
    printf("  %" PRIu64 " steps: %" PRIu64 " calls succeeded, %" PRIu64 " were refused, %" PRIu64
           " ran out of memory\n",
           steps, sum->applied, sum->refused, sum->exhausted);
    CHECK(sum->applied > 0);
    CHECK(one || shard->resize == 0 || alloc_running() || sum->resized > steps / shard->resize / 8);
}

void spec_run_episode(const struct spec_shard *shard, uint64_t seed, const char *only)
{
    unsigned steps = shard->episode;
    struct spec_sum *sum = begin(shard);

    spec_only = only;
    steps = alloc_running() && steps > ALLOC_STEPS ? ALLOC_STEPS : steps;
    require_episode(shard, seed, steps, 1, sum);
    CHECK(sum->applied > 0);
}
