/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers of domains, beside an array of what is taken. */
#include "../../hv/kernel/ids.h"

#include <string.h>

#include "test.h"

static struct ids ids;
static bool taken[DOMAIN_IDS];

static uint32_t take(uint32_t count)
{
    uint32_t first = ids_take(&ids, count);
    for (uint32_t i = first; i != 0 && i < first + count; i++) {
        REQUIRE(i < DOMAIN_IDS && !taken[i]);
        taken[i] = true;
    }
    return first;
}

static void drop(uint32_t id)
{
    ids_drop(&ids, id);
    taken[id] = false;
}

static bool has_row(uint32_t count)
{
    uint32_t row = 0;
    for (uint32_t i = 1; i < DOMAIN_IDS && row < count; i++) {
        row = taken[i] ? 0 : row + 1;
    }
    return row == count;
}

static void check_next(void)
{
    for (uint32_t id = 0, found = 0; id < DOMAIN_IDS; id = found) {
        found = id + 1;
        while (found < DOMAIN_IDS && !taken[found]) {
            found++;
        }
        REQUIRE_EQ(ids_next(&ids, id), found < DOMAIN_IDS ? found : 0);
    }
}

TEST(counts_up_and_comes_round)
{
    CHECK_EQ(take(1), 1);
    CHECK_EQ(take(64), 2);
    drop(1);
    CHECK_EQ(take(1), 66);
    for (uint32_t id = 67; id < DOMAIN_IDS; id++) {
        REQUIRE_EQ(take(1), id);
    }
    CHECK_EQ(take(2), 0);
    CHECK_EQ(take(1), 1);
    CHECK_EQ(take(1), 0);
    check_next();
}

/* The last number is nobody's who does not ask for it. */
TEST(one_that_is_asked_for)
{
    CHECK(ids_take_one(&ids, 7));
    CHECK(!ids_take_one(&ids, 7));
    CHECK(ids_take_one(&ids, DOMAIN_ID_MAX));
    CHECK(!ids_take_one(&ids, DOMAIN_ID_MAX));
    CHECK_EQ(ids_take(&ids, 7), 8);
    CHECK_EQ(ids_next(&ids, 7), 8);
    CHECK_EQ(ids_next(&ids, 14), DOMAIN_ID_MAX);
    CHECK_EQ(ids_next(&ids, DOMAIN_ID_MAX), 0);
    ids_drop(&ids, 7);
    CHECK(ids_take_one(&ids, 7));
}

/* A row is found whenever there is one, and never one that is not. */
TEST(finds_each_row)
{
    uint64_t seed = test_seed();
    for (unsigned round = 0; round < 300; round++) {
        uint32_t count = 1 + (uint32_t)(test_random(&seed) % IDS_ROW_MAX);
        unsigned density = (unsigned)(test_random(&seed) % 100);
        memset(taken, 0, sizeof(taken));
        memset(&ids, 0, sizeof(ids));
        for (uint32_t id = 1; id < DOMAIN_IDS; id++) {
            taken[id] = test_random(&seed) % 100 < density || round % 3 == 0;
            ids.taken[id / 64] |= (uint64_t)taken[id] << id % 64;
        }
        if (round % 3 == 0) { /* all but one row */
            uint32_t first = 1 + (uint32_t)(test_random(&seed) % (DOMAIN_IDS - count));
            for (uint32_t i = first; i < first + count; i++) {
                drop(i);
            }
        }
        ids.last = (uint32_t)(test_random(&seed) % DOMAIN_IDS);
        test_case("%u in a row, %u%% taken, round %u", count, density, round);
        bool has = has_row(count);
        CHECK_EQ(take(count) != 0, has);
        check_next();
    }
}
