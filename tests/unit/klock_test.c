/* SPDX-License-Identifier: BSD-2-Clause */
/* Locks that are only tried, and one who waits for them. */
#include "../../hv/kernel/klock.h"

#include <pthread.h>

#include "test.h"

TEST(is_had_by_one)
{
    struct klock lock = {0};
    CHECK(klock_try(&lock));
    CHECK(!klock_try(&lock));
    klock_release(&lock);
    CHECK(klock_try(&lock));
    klock_release(&lock);
    klock_take(&lock);
    CHECK(!klock_try(&lock));
}

TEST(who_claims_is_next)
{
    struct klock lock = {0};
    CHECK(klock_try(&lock));
    CHECK(!klock_claim(&lock));
    klock_release(&lock);
    CHECK(!klock_try(&lock));
    CHECK(!klock_try(&lock));
    CHECK(klock_claim(&lock));
    CHECK(!klock_try(&lock));
    klock_release(&lock);
    CHECK(klock_try(&lock));
    klock_release(&lock);
    CHECK(klock_claim(&lock)); /* nobody had it */
    klock_release(&lock);
    CHECK(klock_try(&lock));
}

/* --- Beside one who wants it always ----------------------------------------------------------- */

#define TURNS 2000u

static struct klock contended;
static unsigned inside, done, turns; /* `turns`: of the other, under the lock */

static void *have_it_always(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        if (klock_try(&contended)) {
            inside++;
            turns++;
            inside--;
            klock_release(&contended);
        }
    }
    return NULL;
}

TEST(two_threads)
{
    pthread_t other;
    inside = done = turns = 0;
    contended = (struct klock){0};
    REQUIRE(pthread_create(&other, NULL, have_it_always, NULL) == 0);
    for (unsigned i = 0; i < TURNS; i++) {
        while (!klock_claim(&contended)) {
            cpu_pause();
        }
        CHECK_EQ(inside, 0);
        inside++;
        unsigned before = turns;
        cpu_pause();
        CHECK_EQ(turns, before);
        inside--;
        klock_release(&contended);
    }
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    pthread_join(other, NULL);
    CHECK_EQ(contended.held, 0);
    CHECK_EQ(contended.claimed, 0);
}
