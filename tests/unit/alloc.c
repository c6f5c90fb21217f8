/* SPDX-License-Identifier: BSD-2-Clause */
/* See alloc.h. All of it belongs to the thread that runs the test, but for the count. */
#define _GNU_SOURCE
#include "alloc.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "host.h"
#include "test.h"

#define CALLS_MAX (UINT64_C(1) << 22) /* allocations whose call is remembered */
#define THREADED_MOST 6u              /* runs of a test that makes threads: each is a whole one */
#define RUN_SECONDS 30u               /* for what is left of a test after a refusal */

/* What the counting run finds, and what the runs found; shared by all processes. */
static struct shared {
    uint64_t allocations;
    bool threads;
    struct alloc_tally tally;
    uint32_t call[CALLS_MAX]; /* in which each allocation was made; 0: in none */
} * shared;

static struct {
    enum alloc_run run;
    uint64_t only;
    uint64_t *chosen; /* rising; ends with UINT64_MAX */
    const char *panics;
    FILE *output; /* of the child that runs */
    uint64_t seen;
    uint32_t calls;
} mode;

/* The call under way that a test made itself. */
static struct {
    const char *name;
    bool whole, nested, observed;
    struct alloc_state before;
} call;
static _Thread_local unsigned depth;
static bool by_hand; /* the test has taken something of this machine itself */

/* In a process in which an allocation was refused. */
static struct {
    bool done;
    bool in_call;     /* the call is not back yet */
    const char *name; /* its name */
    bool blind;       /* what was refused, or is checked, is not between two calls */
    bool error;       /* a call has failed since */
    bool left;        /* a body of a schedule was ended */
} refused;

/* --- Ends of a child -------------------------------------------------------------------------- */

static _Noreturn void end_run(uint64_t *tally)
{
    __atomic_fetch_add(tally, 1, __ATOMIC_RELAXED);
    fflush(NULL);
    _exit(0);
}

static _Noreturn void fail_run(const char *text)
{
    fflush(stdout);
    (host_fail)("%s: %s", refused.name ? refused.name : "between calls", text);
}

/* More CPUs than one may be in the middle of something. */
static bool concurrent(void) { return host_sched_running() || host_threaded() || shared->threads; }

/* A panic that the test wanted left the core as it was then. */
static bool unsound(void) { return refused.blind || host_panic_text()[0] != '\0'; }

static void verify_end(void)
{
    char text[ALLOC_TEXT];

    if (host_started() && !unsound()) {
        refused.done = false; /* what follows is not the test's */
        host_watch(NULL);
        host_check_locks();
        if ((alloc_settled() && !alloc_audit(text)) || !alloc_destroy(&call.before, text)) {
            fail_run(text);
        }
    }
}

/* Ends the body that runs, if one does and holds no lock. Others may wait for it for ever. */
static void leave_body(void)
{
    if (host_sched_running()) {
        refused.left = true;
        host_sched_leave();
    }
}

/* Is this not the first thread, or not the only one that there is? */
static bool threads_left(void)
{
    unsigned count = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks != NULL && readdir(tasks) != NULL) {
        count++;
    }
    if (tasks != NULL) {
        closedir(tasks);
    }
    return gettid() != getpid() || count != 3; /* the first, "." and ".." */
}

bool alloc_excuses(bool fatal, bool bytes)
{
    if (!refused.done) {
        return false;
    }
    leave_body();
    if (host_sched_running() || depth > 0 || refused.in_call || threads_left()) {
        if (!fatal) {
            return true;
        }
        end_run(&shared->tally.blind);
    }
    if (bytes && !refused.error && !unsound()) {
        fail_run("no call failed, and a guest reads what it should not");
    }
    if (unsound()) {
        end_run(&shared->tally.blind);
    }
    verify_end();
    end_run(&shared->tally.ended);
}

void alloc_finish(void)
{
    if (refused.done) {
        bool blind = unsound();
        verify_end();
        end_run(blind ? &shared->tally.blind : &shared->tally.through);
    }
}

void call_gives_up(void) { (void)alloc_excuses(true, false); }

void call_by_hand(void)
{
    if (depth == 0) {
        by_hand = true;
        refused.blind = refused.done;
    }
}

static void machine_ends(void)
{
    alloc_finish();
    alloc_forget_tree();
    by_hand = false;
}

static void schedule_ended(const char *why, bool expected)
{
    if (!refused.done) {
        return;
    }
    bool waits = refused.left && why != NULL && strncmp(why, "deadlock", 8) == 0;
    if (why != NULL && !expected && !waits) {
        fail_run(why);
    }
    refused.blind = refused.blind || why != NULL;
    refused.in_call = false;
    alloc_finish();
}

/* --- Children --------------------------------------------------------------------------------- */

static bool said(FILE *output, const char *text)
{
    char line[1024];
    bool found = false;

    rewind(output);
    while (!found && fgets(line, sizeof(line), output)) {
        found = strstr(line, text) != NULL;
    }
    return found;
}

static void show(FILE *output)
{
    char line[1024];

    rewind(output);
    while (fgets(line, sizeof(line), output)) {
        printf("    %s", line);
    }
}

/* Notes how the run without allocation `k` ended. */
static void judge_run(uint64_t k, int status)
{
    bool died = WIFSIGNALED(status);
    bool meant = died && WTERMSIG(status) == SIGABRT && mode.panics != NULL &&
                 said(mode.output, mode.panics);

    shared->tally.runs++;
    if (meant) {
        shared->tally.blind++;
    } else if (died || WEXITSTATUS(status) != 0) {
        shared->tally.failed++;
        printf("  allocation %" PRIu64 " refused: %s (again: -k %" PRIu64 ")\n", k,
               !died                         ? "ended before its end"
               : WTERMSIG(status) == SIGALRM ? "time limit exceeded"
                                             : strsignal(WTERMSIG(status)),
               k);
        show(mode.output);
        (void)test_check(false, false, __FILE__, __LINE__, "all is well without it");
    }
}

static void become_refused(void)
{
    if (concurrent()) {
        call.before = (struct alloc_state){0};
    }
    refused.done = true;
    refused.in_call = depth > 0;
    refused.name = depth > 0 ? call.name : NULL;
    refused.blind = concurrent() ? by_hand : !call.observed || !call.before.sound;
}

/* True in the child, which is to refuse the allocation. */
static bool fork_run(uint64_t k)
{
    fflush(NULL);
    rewind(mode.output);
    if (ftruncate(fileno(mode.output), 0) != 0) {
        perror("ftruncate");
    }
    pid_t child = fork();
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        dup2(fileno(mode.output), STDOUT_FILENO);
        dup2(fileno(mode.output), STDERR_FILENO);
        alarm(RUN_SECONDS);
        return true;
    }
    int status = 0;
    if (child < 0) {
        perror("fork");
        status = 1 << 8;
    } else {
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    }
    judge_run(k, status);
    return false;
}

static bool refuse(void)
{
    if (refused.done || (depth == 0 && !concurrent())) {
        return false; /* one that the test makes by hand is not looked at */
    }
    uint64_t k = __atomic_add_fetch(&mode.seen, 1, __ATOMIC_RELAXED);

    switch (mode.run) {
    case ALLOC_OFF:
        break;
    case ALLOC_COUNT:
        shared->allocations = k;
        shared->threads = shared->threads || host_threaded();
        if (k <= CALLS_MAX) {
            shared->call[k - 1] = depth > 0 && !concurrent() ? mode.calls : 0;
        }
        break;
    case ALLOC_REFUSE:
        if (*mode.chosen == k) {
            mode.chosen++;
            if (fork_run(k)) {
                become_refused();
                return true;
            }
        }
        break;
    case ALLOC_ONE:
        if (k == mode.only) {
            become_refused();
            return true;
        }
        break;
    }
    return false;
}

/* --- Calls ------------------------------------------------------------------------------------ */

/* Will an allocation be refused in the call that begins? */
static bool is_chosen(void)
{
    if (mode.run == ALLOC_ONE) {
        return true;
    }
    return mode.run == ALLOC_REFUSE && *mode.chosen <= CALLS_MAX &&
           shared->call[*mode.chosen - 1] == mode.calls;
}

unsigned call_depth(void) { return depth; }
void call_return(unsigned to) { depth = to; }

void call_begin(const char *name, bool whole)
{
    if (mode.run == ALLOC_OFF || host_sched_running()) {
        return;
    }
    if (depth++ > 0 || host_threaded()) {
        call.nested = true;
        return;
    }
    mode.calls++;
    if (refused.done) {
        return;
    }
    call.name = name;
    call.whole = whole;
    call.nested = false;
    call.observed = false;
    if (is_chosen() && host_started()) {
        alloc_observe(&call.before);
        call.observed = true;
    }
}

/* The call in which an allocation was refused is back. */
static void after_refusal(enum cleave_status status)
{
    char text[ALLOC_TEXT];

    refused.in_call = false;
    if (call.observed && !call.before.locked && !concurrent()) {
        host_check_locks();
    }
    if (unsound() || concurrent() || !call.before.settled) {
        return;
    }
    bool failed = status >= CLEAVE_ERROR_FIRST;
    if (!alloc_settled()) {
        if (failed) {
            fail_run("it failed, and is to be continued");
        }
        return; /* a preempted call is a call in flight to the audit */
    }
    if (!alloc_audit(text)) {
        fail_run(text);
    }
    if (failed && call.whole && !call.nested) {
        if (!alloc_compare(&call.before, text)) {
            fail_run(text);
        }
        __atomic_fetch_add(&shared->tally.compared, 1, __ATOMIC_RELAXED);
    }
}

enum cleave_status call_end(enum cleave_status status)
{
    if (mode.run == ALLOC_OFF) {
        return status;
    }
    if (host_sched_running()) {
        if (refused.done && status >= CLEAVE_ERROR_FIRST) {
            leave_body(); /* bodies rarely look at a status before they go on */
        }
        return status;
    }
    depth--;
    if (refused.done && depth == 0) {
        refused.error = refused.error || status >= CLEAVE_ERROR_FIRST;
        if (refused.in_call) {
            after_refusal(status);
        }
    }
    return status;
}

/* --- Runs ------------------------------------------------------------------------------------- */

void alloc_prepare(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
}

uint64_t alloc_counted(bool *threads)
{
    *threads = shared->threads;
    return shared->allocations;
}

bool alloc_running(void) { return mode.run != ALLOC_OFF; }

struct alloc_tally alloc_tally(void) { return shared->tally; }

/* All of 1 to `count`, or `most` of them: some first and last ones, the others spread between; or
 * `only` one. */
static uint64_t *choose(uint64_t count, uint64_t most, uint64_t only)
{
    uint64_t n = count < most ? count : most;
    uint64_t *list = malloc((n + 2) * sizeof(*list));
    uint64_t edge = n < count ? n / 4 : n; /* this many at either end */
    uint64_t state = count;

    if (list == NULL) {
        perror("malloc");
        exit(1);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t inner = n - 2 * edge;
        uint64_t span = count - 2 * edge;
        if (i < edge) {
            list[i] = i + 1;
        } else if (i >= n - edge) {
            list[i] = count - (n - 1 - i);
        } else {
            uint64_t from = span * (i - edge) / inner;
            uint64_t to = span * (i - edge + 1) / inner;
            list[i] = edge + 1 + from + test_random(&state) % (to - from);
        }
    }
    if (only != 0) {
        list[0] = only;
        n = 1;
    }
    list[n] = UINT64_MAX;
    return list;
}

bool alloc_begin(enum alloc_run run, uint64_t only, uint64_t most, const char *panics)
{
    static const struct host_watch watch = {refuse, machine_ends, schedule_ended};

    mode.run = run;
    mode.only = only;
    mode.panics = panics;
    if (run == ALLOC_OFF) {
        return true;
    }
    setenv("CLEAVE_TEST_NOFORK", "1", 1); /* random runs stay in this process */
    host_watch(&watch);
    if (run == ALLOC_COUNT) {
        shared->allocations = 0;
        shared->threads = false;
        shared->tally = (struct alloc_tally){0};
    }
    if (run != ALLOC_REFUSE) {
        return true;
    }
    if (shared->threads && most > THREADED_MOST) {
        most = THREADED_MOST;
    }
    mode.chosen = choose(shared->allocations, most, only);
    mode.output = tmpfile();
    if (mode.output == NULL) {
        perror("tmpfile");
        exit(1);
    }
    for (; shared->threads && *mode.chosen != UINT64_MAX; mode.chosen++) {
        if (fork_run(*mode.chosen)) {
            mode.run = ALLOC_ONE;
            mode.only = *mode.chosen;
            return true;
        }
    }
    return !shared->threads;
}
