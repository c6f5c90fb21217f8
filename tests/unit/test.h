/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unit-test framework. A test program is one *_test.c file and test_main.c. Each test runs in a
 * process of its own, so that it starts on a fresh machine and a crash or a hang is one failure.
 *
 *     TEST(map_refuses_wrap)
 *     {
 *         struct space *space = ...;
 *         REQUIRE(space != NULL);                         ends the test when it does not hold
 *         CHECK_STATUS(space_map(...), CLEAVE_WRAP);      notes a failure and goes on
 *         CHECK_EQ(pool->free, 17);                       prints both values
 *     }
 *
 * The suite's name is the file's without "_test.c", so in space_test.c this is the test
 * space.map_refuses_wrap. A test that checks nothing fails.
 */
#ifndef TEST_H
#define TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calls.h"
#include "random.h"

#define TEST_SECONDS 60u /* time limit of a test that does not ask for more */

/* One test, or one table of them. Tests are kept in the order of their definition. */
struct test {
    const char *file;
    const char *name;
    void (*run)(const void *row);
    const void *rows; /* TEST_TABLE: array of structs that start with `const char *label` */
    size_t row_size;
    size_t row_count;
    unsigned seconds;
    const char *panics; /* TEST_PANICS: text that the dying test must have printed */
    struct test *next;
};

void test_register(struct test *test);

#define TEST_DEFINE(name_, ...)                                                                    \
    __attribute__((constructor)) static void test_register_##name_(void)                           \
    {                                                                                              \
        static struct test test = {                                                                \
            .file = __FILE__, .name = #name_, .run = test_run_##name_, __VA_ARGS__};               \
        test_register(&test);                                                                      \
    }

#define TEST_WITH(name_, ...)                                                                      \
    static void test_##name_(void);                                                                \
    static void test_run_##name_(const void *row)                                                  \
    {                                                                                              \
        (void)row;                                                                                 \
        test_##name_();                                                                            \
    }                                                                                              \
    TEST_DEFINE(name_, __VA_ARGS__)                                                                \
    static void test_##name_(void)

#define TEST(name) TEST_WITH(name, .seconds = TEST_SECONDS)

/* A test with a time limit of its own. */
#define TEST_TIMED(name, limit) TEST_WITH(name, .seconds = (limit))

/* A test that passes only if it ends by abort(), as port_panic() does, and has printed `text`. */
#define TEST_PANICS(name, text) TEST_WITH(name, .seconds = TEST_SECONDS, .panics = (text))

/*
 * The same test once per row of an array, each in a process of its own and counted as one test,
 * `suite.name/label`. A row is a struct whose first member is `const char *label`; the body sees it
 * as `row`:
 *
 *     static const struct size_case { const char *label; unsigned order; } sizes[] = { ... };
 *     TEST_TABLE(unmap, sizes) { CHECK_EQ(level_pages(row->order), ...); }
 */
#define TEST_TABLE(name_, table)                                                                   \
    static void test_##name_(const __typeof__((table)[0]) *row);                                   \
    static void test_run_##name_(const void *row) { test_##name_(row); }                           \
    TEST_DEFINE(name_, .seconds = TEST_SECONDS, .rows = (table), .row_size = sizeof((table)[0]),   \
                .row_count = sizeof(table) / sizeof((table)[0]))                                   \
    static void test_##name_(const __typeof__((table)[0]) *row)

/* Ends the test and counts it as skipped. */
#define TEST_SKIP(why) test_skip(why)

/* First line of a test that stops at port points; the build that ships has none. */
#ifdef MM_HOOKS
#define TEST_NEEDS_HOOKS() ((void)0)
#else
#define TEST_NEEDS_HOOKS() test_skip("built without MM_HOOKS")
#endif

/* The same for a test that relies on MM_ASSERT(). */
#ifdef MM_DEBUG
#define TEST_NEEDS_DEBUG() ((void)0)
#else
#define TEST_NEEDS_DEBUG() test_skip("built without MM_DEBUG")
#endif

/* --- Checks ----------------------------------------------------------------------------------- */

/* CHECK notes a failure and goes on; its value says whether it held. REQUIRE ends the test. Both
 * may be used at any depth and in any thread of the test. */
#define CHECK(condition)                                                                           \
    test_check((condition) ? true : false, false, __FILE__, __LINE__, #condition)
#define REQUIRE(condition)                                                                         \
    ((void)test_check((condition) ? true : false, true, __FILE__, __LINE__, #condition))

/* Integers, enums, booleans and pointers, printed in decimal and hexadecimal. */
#define CHECK_EQ(actual, expected) TEST_COMPARE(TEST_EQ, actual, expected, false)
#define CHECK_NE(actual, expected) TEST_COMPARE(TEST_NE, actual, expected, false)
#define CHECK_LE(actual, limit) TEST_COMPARE(TEST_LE, actual, limit, false)
#define REQUIRE_EQ(actual, expected) ((void)TEST_COMPARE(TEST_EQ, actual, expected, true))

/* A status, printed by name. */
#define CHECK_STATUS(call, expected)                                                               \
    test_check_status((unsigned)(call), (unsigned)(expected), false, __FILE__, __LINE__, #call)
#define CHECK_OK(call) test_check_status((unsigned)(call), 0, false, __FILE__, __LINE__, #call)
#define REQUIRE_OK(call)                                                                           \
    ((void)test_check_status((unsigned)(call), 0, true, __FILE__, __LINE__, #call))

/* `size` bytes; prints the first that differ. */
#define CHECK_BYTES(actual, expected, size)                                                        \
    test_check_bytes((actual), (expected), (size), __FILE__, __LINE__, #actual)

/* Says, printf-like, which case of a loop the following checks are about; "" for none. It is
 * printed with each failure. */
void test_case(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- Randomized and long tests ---------------------------------------------------------------- */

/* CLEAVE_SEED when set, else a fixed number, or (CLEAVE_LONG) a new one; prints which. */
uint64_t test_seed(void);
/* `normal` iterations, ten times as many when CLEAVE_LONG is set. */
uint64_t test_steps(uint64_t normal);
/* Preemptions of an exploration of schedules: `most`, or one less where that takes long (under a
 * sanitizer, in a plain check). */
unsigned test_preemptions(unsigned most);

/* --- Behind the macros ------------------------------------------------------------------------ */

enum test_relation { TEST_EQ, TEST_NE, TEST_LE };

#define TEST_COMPARE(relation, a, b, fatal)                                                        \
    test_compare((uint64_t)(a), (uint64_t)(b), relation, fatal, __FILE__, __LINE__, #a, #b)

bool test_check(bool held, bool fatal, const char *file, int line, const char *what);
bool test_compare(uint64_t a, uint64_t b, enum test_relation relation, bool fatal, const char *file,
                  int line, const char *a_text, const char *b_text);
bool test_check_status(unsigned actual, unsigned expected, bool fatal, const char *file, int line,
                       const char *call);
bool test_check_bytes(const void *actual, const void *expected, size_t size, const char *file,
                      int line, const char *what);
_Noreturn void test_skip(const char *why);
/* Called once for each check that failed: a place for a breakpoint. */
void test_failed(void);

#endif
