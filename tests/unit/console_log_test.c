/* SPDX-License-Identifier: BSD-2-Clause */
/* The log of what the hypervisor printed: what is kept, from where it is read, what is cleared. */
#include "../../hv/x86/console_log.h"

#include <string.h>

#include "test.h"

static void put(const char *text)
{
    while (*text != '\0') {
        console_log_put(*text++);
    }
}

static char got[2 * CONSOLE_LOG_SIZE];

/* What is there from `*from` on, as text. */
static const char *take(uint32_t *from, uint32_t room)
{
    uint32_t count = console_log_take(from, got, room);
    got[count] = '\0';
    return got;
}

TEST(reads_in_parts)
{
    uint32_t at = console_log_first();
    CHECK_EQ(strcmp(take(&at, 100), ""), 0);
    put("one\ntwo\n");
    at = console_log_first();
    CHECK_EQ(strcmp(take(&at, 6), "one\ntw"), 0);
    CHECK_EQ(strcmp(take(&at, 0), ""), 0);
    CHECK_EQ(strcmp(take(&at, 6), "o\n"), 0);
    CHECK_EQ(strcmp(take(&at, 6), ""), 0);
    put("three\n");
    CHECK_EQ(strcmp(take(&at, 100), "three\n"), 0);
    at = console_log_first();
    CHECK_EQ(strcmp(take(&at, 100), "one\ntwo\nthree\n"), 0);
}

TEST(keeps_the_newest)
{
    uint32_t at = console_log_first();
    for (uint32_t i = 0; i < 5 * CONSOLE_LOG_SIZE / 2; i++) { /* past 2^32 */
        console_log_put((char)('a' + i % 26));
    }
    CHECK(console_log_first() < CONSOLE_LOG_SIZE);
    CHECK_EQ(console_log_take(&at, got, sizeof(got)), CONSOLE_LOG_SIZE);
    for (uint32_t i = 0; i < CONSOLE_LOG_SIZE; i++) {
        uint32_t number = 3 * CONSOLE_LOG_SIZE / 2 + i;
        CHECK_EQ(got[i], (char)('a' + number % 26));
    }
    const uint32_t wrong[] = {at - 2 * CONSOLE_LOG_SIZE, at + 5, UINT32_MAX};
    for (unsigned i = 0; i < 3; i++) {
        uint32_t from = wrong[i];
        test_case("from %u", from);
        CHECK_EQ(console_log_take(&from, got, 10), 10);
        CHECK_EQ(from, at - CONSOLE_LOG_SIZE + 10);
    }
}

TEST(clears_up_to_a_place)
{
    uint32_t at = console_log_first();
    put("one\ntwo\n");
    take(&at, 4);
    console_log_drop(at);
    at = console_log_first();
    CHECK_EQ(strcmp(take(&at, 100), "two\n"), 0);
    console_log_drop(at + 1); /* behind the end: nothing */
    console_log_drop(at - 100);
    uint32_t again = console_log_first();
    CHECK_EQ(strcmp(take(&again, 100), "two\n"), 0);
    console_log_drop(at);
    again = console_log_first();
    CHECK_EQ(strcmp(take(&again, 100), ""), 0);
    CHECK_EQ(again, at);
    put("three\n");
    CHECK_EQ(strcmp(take(&again, 100), "three\n"), 0);
}
