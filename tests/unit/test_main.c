/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs the tests of one program, each in a child process with a time limit. The child's output is
 * kept in a file and shown when it fails; what it found is in a page shared with the parent.
 *
 *     space_test                     all tests
 *     space_test map fork/2M         those of these names
 *     space_test --list              prints the names
 *     space_test -a [map...]         each with every allocation refused in turn; see alloc.h
 *     space_test map.alloc           the same
 *     space_test -k 17 map           with allocation 17 refused
 *
 *     CLEAVE_TEST_NOFORK=1           in this process, without a time limit (for a debugger)
 *     CLEAVE_TEST_SECONDS=n          another time limit for every test
 *     CLEAVE_TEST_VERBOSE=1          output of passing tests, too
 *     CLEAVE_TEST_REPORT=file        appends a line `pass|fail|skip suite.name variant` per test,
 * and `part suite.name.alloc variant n of N`, where a long check refuses only n of its N
 * allocations CLEAVE_SEED=n, CLEAVE_LONG=1   see test.h
 */
#define _GNU_SOURCE
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"
#include "cleave/status.h"

#ifndef TEST_VARIANT
#define TEST_VARIANT "unknown"
#endif

enum outcome { OUTCOME_PASS, OUTCOME_FAIL, OUTCOME_SKIP };
static const char *const outcome_line[] = {"ok  ", "FAIL", "skip"};
static const char *const outcome_report[] = {"pass", "fail", "skip"};

/* What the child has found so far; in memory that the parent shares. */
static struct {
    unsigned checks;
    unsigned failures;
    bool finished;
    bool skipped;
} * found;

#define FAILURES_MAX 10u /* checks that may fail before the test is ended */

static struct test *tests;
static struct test **tests_end = &tests;
static char case_text[160];

void test_register(struct test *test)
{
    *tests_end = test;
    tests_end = &test->next;
}

/* --- Checks ----------------------------------------------------------------------------------- */

/* For AddressSanitizer: the processes that run tests end without freeing what they hold. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; }

/* Never inlined nor merged: gdb stops here. */
__attribute__((noinline)) void test_failed(void) { __asm__ volatile("" ::: "memory"); }

static _Noreturn void end_child(void)
{
    fflush(NULL);
    _exit(0);
}

/* Counts a check; returns `held`, does not return when a fatal one did not hold. `bytes`: what a
 * guest reads was checked. */
static bool count_check(bool held, bool fatal, bool bytes)
{
    __atomic_fetch_add(&found->checks, 1, __ATOMIC_RELAXED);
    if (held) {
        return true;
    }
    if (alloc_excuses(fatal, bytes)) {
        return false;
    }
    unsigned failures = __atomic_add_fetch(&found->failures, 1, __ATOMIC_RELAXED);
    test_failed();
    if (fatal || failures >= FAILURES_MAX) {
        end_child();
    }
    return false;
}

static void say_where(const char *file, int line)
{
    printf("  %s:%d: %s%s", file, line, case_text, case_text[0] ? ": " : "");
}

void test_case(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(case_text, sizeof(case_text), format, arguments);
    va_end(arguments);
}

bool test_check(bool held, bool fatal, const char *file, int line, const char *what)
{
    if (!held) {
        say_where(file, line);
        printf("does not hold: %s\n", what);
    }
    return count_check(held, fatal, false);
}

bool test_compare(uint64_t a, uint64_t b, enum test_relation relation, bool fatal, const char *file,
                  int line, const char *a_text, const char *b_text)
{
    static const char *const sign[] = {"==", "!=", "<="};
    bool held = false;

    switch (relation) {
    case TEST_EQ:
        held = a == b;
        break;
    case TEST_NE:
        held = a != b;
        break;
    case TEST_LE:
        held = a <= b;
        break;
    }
    if (!held) {
        say_where(file, line);
        printf("does not hold: %s %s %s\n", a_text, sign[relation], b_text);
        printf("    left  %" PRId64 " (0x%" PRIx64 ")\n", (int64_t)a, a);
        printf("    right %" PRId64 " (0x%" PRIx64 ")\n", (int64_t)b, b);
    }
    return count_check(held, fatal, false);
}

static const char *status_name(unsigned status)
{
#define NAME(name) [CLEAVE_##name] = "CLEAVE_" #name
    static const char *const names[] = {
        NAME(OK),      NAME(AGAIN),    NAME(WAIT),       NAME(ALIGN),     NAME(RANGE),
        NAME(WRAP),    NAME(COUNT),    NAME(ORDER),      NAME(RIGHTS),    NAME(POLICY),
        NAME(OVERLAP), NAME(EXISTS),   NAME(NOT_MAPPED), NAME(NO_MEMORY), NAME(QUOTA),
        NAME(RESERVE), NAME(OVERFLOW), NAME(TYPE),       NAME(NO_CAP),    NAME(REVOKED),
        NAME(DENIED),  NAME(DYING),    NAME(FROZEN),     NAME(BUSY),      NAME(NO_BASE),
        NAME(FAMILY),  NAME(DEVICE),   NAME(FAULT),      NAME(IO),        NAME(INVALID),
    };
#undef NAME
    _Static_assert(sizeof(names) / sizeof(names[0]) == CLEAVE_STATUS_END, "every status is named");
    return status < CLEAVE_STATUS_END && names[status] ? names[status] : "no status";
}

bool test_check_status(unsigned actual, unsigned expected, bool fatal, const char *file, int line,
                       const char *call)
{
    if (actual != expected) {
        say_where(file, line);
        printf("%s\n    returned %s (%u)\n    not      %s (%u)\n", call, status_name(actual),
               actual, status_name(expected), expected);
    }
    return count_check(actual == expected, fatal, false);
}

bool test_check_bytes(const void *actual, const void *expected, size_t size, const char *file,
                      int line, const char *what)
{
    const unsigned char *a = actual;
    const unsigned char *b = expected;
    bool held = memcmp(a, b, size) == 0;

    if (!held) {
        size_t at = 0;
        while (a[at] == b[at]) {
            at++;
        }
        say_where(file, line);
        printf("%s: byte %zu of %zu is 0x%02x, not 0x%02x\n", what, at, size, a[at], b[at]);
    }
    return count_check(held, false, true);
}

void test_skip(const char *why)
{
    printf("  %s\n", why);
    found->skipped = true;
    found->finished = true;
    end_child();
}

/* --- Randomized and long tests ---------------------------------------------------------------- */

uint64_t test_seed(void)
{
    const char *given = getenv("CLEAVE_SEED");
    uint64_t seed = UINT64_C(0x636c65617665);

    if (given) {
        seed = strtoull(given, NULL, 0);
    } else if (getenv("CLEAVE_LONG")) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = (uint64_t)now.tv_sec << 20 ^ (uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 40;
    }
    printf("  seed: CLEAVE_SEED=0x%" PRIx64 "\n", seed);
    fflush(stdout);
    return seed;
}

uint64_t test_steps(uint64_t normal) { return getenv("CLEAVE_LONG") ? normal * 10 : normal; }

unsigned test_preemptions(unsigned most)
{
    bool slow = strstr(TEST_VARIANT, "asan") != NULL && getenv("CLEAVE_LONG") == NULL;
    return slow ? most - 1 : most;
}

/* --- Names ------------------------------------------------------------------------------------ */

/* "tests/unit/space_test.c" is the suite "space". */
static void write_suite(char *to, size_t size, const char *file)
{
    const char *slash = strrchr(file, '/');
    snprintf(to, size, "%s", slash ? slash + 1 : file);
    char *end = strstr(to, "_test.c");
    if (end) {
        *end = '\0';
    }
}

static const void *test_row(const struct test *test, size_t index)
{
    return test->rows ? (const char *)test->rows + index * test->row_size : NULL;
}

/* suite.name or suite.name/label; blanks in the label become '-', so that the name is one word. */
static void write_name(char *to, size_t size, const struct test *test, const void *row)
{
    char suite[80];
    write_suite(suite, sizeof(suite), test->file);
    snprintf(to, size, "%s.%s", suite, test->name);
    if (row) {
        size_t used = strlen(to);
        snprintf(to + used, size - used, "/%s", *(const char *const *)row);
        for (char *at = to + used; *at; at++) {
            if (*at == ' ') {
                *at = '-';
            }
        }
    }
}

/* `wanted` is the full name, or that without its suite or its label or both, or the suite alone. */
static bool name_matches(const char *full, const char *wanted)
{
    const char *name = strchr(full, '.') + 1;
    size_t suite = (size_t)(name - full) - 1;
    size_t size = strlen(wanted);

    if (size == suite && strncmp(full, wanted, size) == 0) {
        return true;
    }
    for (unsigned i = 0; i < 2; i++) {
        const char *candidate = i == 0 ? full : name;
        if (strncmp(candidate, wanted, size) == 0 &&
            (candidate[size] == '\0' || candidate[size] == '/')) {
            return true;
        }
    }
    return false;
}

static bool name_wanted(const char *full, int count, char **wanted)
{
    for (int i = 0; i < count; i++) {
        if (name_matches(full, wanted[i])) {
            return true;
        }
    }
    return count == 0;
}

/* --- Running ---------------------------------------------------------------------------------- */

static unsigned long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
}

#define ALLOC_SECONDS 600u /* for all runs of a test without an allocation */
#define ALLOC_MOST 32u     /* of these */
#define ALLOC_LONG 64u     /* in a long check, on the small geometry */
#define ALLOC_WIDE 16u     /* and on the real one, where a run can take seconds */
#define ALLOC_SLOW 1500u   /* milliseconds: what takes longer there is left to the small one */
#define ALLOC_ALL 4000u    /* where all are wanted: of a test that has no more */
#define ALLOC_REAL 200u    /* there of one that has more, in the real geometry */

/* How tests are run, and with allocation `only` refused, or 0. */
struct way {
    enum alloc_run run;
    uint64_t only;
};

/* How many of a test's `count` allocations are refused at most. */
static uint64_t alloc_most(uint64_t count)
{
    if (!getenv("CLEAVE_ALL_ALLOCATIONS")) {
        bool small = TABLE_ENTRIES == 4;
        return getenv("CLEAVE_LONG") == NULL ? ALLOC_MOST : small ? ALLOC_LONG : ALLOC_WIDE;
    }
    return TABLE_ENTRIES > 4 && count > ALLOC_ALL ? ALLOC_REAL : ALLOC_ALL;
}

/* In the child, or with CLEAVE_TEST_NOFORK in the only process. */
static _Noreturn void run_here(const struct test *test, const void *row, struct way way)
{
    bool threads;
    uint64_t most = alloc_most(alloc_counted(&threads));

    if (alloc_begin(way.run, way.only, most, test->panics)) {
        test->run(row);
        alloc_finish();
    }
    found->finished = true;
    end_child();
}

/* Waits for `child` at most until the limit; true when it had to be killed. SIGCHLD is blocked. */
static bool wait_child(pid_t child, unsigned seconds, int *status)
{
    unsigned long end = milliseconds() + seconds * 1000ul;
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    while (waitpid(child, status, WNOHANG) == 0) {
        unsigned long now = milliseconds();
        if (now >= end) {
            kill(-child, SIGKILL);
            kill(child, SIGKILL);
            waitpid(child, status, 0);
            return true;
        }
        struct timespec left = {(time_t)((end - now) / 1000), (long)((end - now) % 1000 * 1000000)};
        sigtimedwait(&signals, NULL, &left);
    }
    kill(-child, SIGKILL); /* what it may have left running */
    return false;
}

static bool output_contains(FILE *output, const char *text)
{
    char line[1024];
    bool contains = false;

    rewind(output);
    while (!contains && fgets(line, sizeof(line), output)) {
        contains = strstr(line, text) != NULL;
    }
    return contains;
}

/* Decides what a child that ended with `status` was, and writes why it failed to `why`. */
static enum outcome judge(const struct test *test, int status, bool killed, FILE *output, char *why,
                          size_t size)
{
    why[0] = '\0';
    if (killed) {
        snprintf(why, size, "time limit exceeded");
    } else if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        if (test->panics && number == SIGABRT && found->failures == 0) {
            if (output_contains(output, test->panics)) {
                return OUTCOME_PASS;
            }
            snprintf(why, size, "panicked without saying \"%s\"", test->panics);
        } else {
            snprintf(why, size, "killed by signal %d (%s)", number, strsignal(number));
        }
    } else if (found->failures > 0) {
        snprintf(why, size, "%u of %u checks failed", found->failures, found->checks);
    } else if (WEXITSTATUS(status) != 0 || !found->finished) {
        snprintf(why, size, "exited with %d before its end", WEXITSTATUS(status));
    } else if (found->skipped) {
        return OUTCOME_SKIP;
    } else if (test->panics) {
        snprintf(why, size, "did not panic");
    } else if (found->checks == 0) {
        snprintf(why, size, "checked nothing");
    } else {
        return OUTCOME_PASS;
    }
    return OUTCOME_FAIL;
}

static void show_output(FILE *output)
{
    char block[4096];
    size_t size;

    rewind(output);
    while ((size = fread(block, 1, sizeof(block), output)) > 0) {
        fwrite(block, 1, size, stdout);
    }
}

static void report_line(const char *what, const char *name, const char *more)
{
    const char *path = getenv("CLEAVE_TEST_REPORT");
    FILE *file = path ? fopen(path, "a") : NULL;

    if (file) {
        fprintf(file, "%s %s %s%s\n", what, name, TEST_VARIANT, more);
        fclose(file);
    }
}

static void report(const char *name, enum outcome outcome)
{
    report_line(outcome_report[outcome], name, "");
}

/* Where every allocation is to be refused: says of which test it was not. */
static void report_part(const char *name, uint64_t runs, uint64_t count)
{
    char text[64];

    if (getenv("CLEAVE_ALL_ALLOCATIONS") && runs < count) {
        snprintf(text, sizeof(text), " %" PRIu64 " of %" PRIu64, runs, count);
        report_line("part", name, text);
    }
}

/* Runs the test in a process of its own. How that ended; `why`, and its output is in `output`. */
static enum outcome run_process(const struct test *test, const void *row, struct way way,
                                FILE *output, char *why, size_t size)
{
    const char *limit = getenv("CLEAVE_TEST_SECONDS");
    unsigned seconds = limit ? (unsigned)strtoul(limit, NULL, 10) : test->seconds;
    seconds = way.run == ALLOC_OFF || way.run == ALLOC_COUNT ? seconds : ALLOC_SECONDS;
    seconds = getenv("CLEAVE_LONG") ? seconds * 20 : seconds;
    memset(found, 0, sizeof(*found));

    pid_t parent = getpid();
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        dup2(fileno(output), STDOUT_FILENO);
        dup2(fileno(output), STDERR_FILENO);
        run_here(test, row, way);
    }
    setpgid(child, child); /* as the child does: whoever is first */

    int status = 0;
    bool killed = wait_child(child, seconds, &status);
    return judge(test, status, killed, output, why, size);
}

static FILE *open_output(void)
{
    FILE *output = tmpfile();
    if (!output) {
        perror("tmpfile");
        exit(1);
    }
    return output;
}

static void end_test(enum outcome outcome, const char *name, FILE *output)
{
    if (outcome != OUTCOME_PASS || getenv("CLEAVE_TEST_VERBOSE")) {
        show_output(output);
    }
    fclose(output);
    fflush(stdout);
    report(name, outcome);
}

static enum outcome run_test(const struct test *test, const void *row, const char *name)
{
    char why[160];
    FILE *output = open_output();
    unsigned long start = milliseconds();
    enum outcome outcome =
        run_process(test, row, (struct way){ALLOC_OFF, 0}, output, why, sizeof(why));

    printf("%s  %s  %lu ms%s%s\n", outcome_line[outcome], name, milliseconds() - start,
           why[0] ? "  " : "", why);
    end_test(outcome, name, output);
    return outcome;
}

/* The seed of a randomized test: the same in all its runs. */
static void fix_seed(void)
{
    char text[32];

    if (getenv("CLEAVE_LONG") && !getenv("CLEAVE_SEED")) {
        snprintf(text, sizeof(text), "0x%" PRIx64, test_seed());
        setenv("CLEAVE_SEED", text, 1);
    }
}

/* The test once for each allocation that it makes, all together one test suite.name.alloc. */
static enum outcome run_alloc(const struct test *test, const void *row, const char *name,
                              uint64_t only)
{
    char why[160];
    char full[260];
    bool threads;
    FILE *output = open_output();
    unsigned long start = milliseconds();
    enum outcome outcome =
        run_process(test, row, (struct way){ALLOC_COUNT, 0}, output, why, sizeof(why));
    uint64_t count = alloc_counted(&threads);

    snprintf(full, sizeof(full), "%s.alloc", name);
    if (outcome == OUTCOME_PASS && count == 0) {
        printf("      %s makes no allocation\n", name);
        fclose(output);
        return outcome; /* not a test */
    }
    bool slow = TABLE_ENTRIES > 4 && only == 0 && milliseconds() - start > ALLOC_SLOW &&
                !getenv("CLEAVE_ALL_ALLOCATIONS");
    if (outcome == OUTCOME_PASS && slow) {
        outcome = OUTCOME_SKIP;
        snprintf(why, sizeof(why), "it takes long here: the small geometry has it");
    }
    if (outcome == OUTCOME_PASS) {
        outcome =
            run_process(test, row, (struct way){ALLOC_REFUSE, only}, output, why, sizeof(why));
    }
    struct alloc_tally tally = alloc_tally();
    printf("%s  %s  %lu ms  %" PRIu64 " of %" PRIu64 " allocations refused: %" PRIu64
           " went through, %" PRIu64 " ended by it, %" PRIu64 " blind; %" PRIu64 " compared%s%s\n",
           outcome_line[outcome], full, milliseconds() - start, tally.runs, count, tally.through,
           tally.ended, tally.blind, tally.compared, why[0] ? "  " : "", why);
    if (outcome == OUTCOME_PASS && only == 0) {
        report_part(full, tally.runs, count);
    }
    end_test(outcome, full, output);
    return outcome;
}

/* What the command line asks for; what is left of it are names. */
struct request {
    bool list, alloc;
    uint64_t only;
    int count;
    char **names;
};

static struct request read_request(int argc, char **argv)
{
    struct request request = {.count = argc - 1, .names = argv + 1};
    int options = 0;

    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        request.list = true;
        options = 1;
    } else if (argc > 1 && strcmp(argv[1], "-a") == 0) {
        request.alloc = true;
        options = 1;
    } else if (argc > 2 && strcmp(argv[1], "-k") == 0) {
        request.alloc = true;
        request.only = strtoull(argv[2], NULL, 0);
        options = 2;
    }
    request.count -= options;
    request.names += options;
    for (int i = 0; i < request.count; i++) {
        static const char suffix[] = ".alloc";
        size_t size = strlen(request.names[i]);
        if (size >= sizeof(suffix) &&
            strcmp(request.names[i] + size - (sizeof(suffix) - 1), suffix) == 0) {
            request.names[i][size - (sizeof(suffix) - 1)] = '\0';
            request.alloc = true;
        }
    }
    return request;
}

/* Runs one test, or lists it; true when it failed. */
static bool serve(const struct request *request, const struct test *test, const void *row,
                  const char *name)
{
    if (request->list) {
        puts(name);
        return false;
    }
    if (getenv("CLEAVE_TEST_NOFORK")) {
        printf("running %s\n", name);
        run_here(test, row,
                 (struct way){request->only != 0 ? ALLOC_ONE : ALLOC_OFF, request->only});
    }
    enum outcome outcome =
        request->alloc ? run_alloc(test, row, name, request->only) : run_test(test, row, name);
    return outcome == OUTCOME_FAIL;
}

int main(int argc, char **argv)
{
    struct request request = read_request(argc, argv);
    unsigned failed = 0;
    unsigned run = 0;
    sigset_t signals;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* a crash must not lose what was said before it */
    found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    alloc_prepare();
    if (request.alloc) {
        fix_seed();
    }
    if (!getenv("CLEAVE_TEST_NOFORK")) {
        sigemptyset(&signals);
        sigaddset(&signals, SIGCHLD);
        sigprocmask(SIG_BLOCK, &signals, NULL);
    }
    for (const struct test *test = tests; test; test = test->next) {
        for (size_t i = 0; i < (test->rows ? test->row_count : 1); i++) {
            char name[240];
            write_name(name, sizeof(name), test, test_row(test, i));
            if (name_wanted(name, request.count, request.names)) {
                run++;
                failed += serve(&request, test, test_row(test, i), name);
            }
        }
    }
    if (run == 0 && !request.list) {
        fprintf(stderr, "%s: no such test\n", argv[0]);
    }
    return failed > 0 || run == 0;
}
