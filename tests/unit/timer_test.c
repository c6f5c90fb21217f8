/* SPDX-License-Identifier: BSD-2-Clause */
/* The heap of vcpus' timers beside a naive list, and who is woken when. The vcpus are records. */
#include <asm/prctl.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../hv/kernel/sched.h"
#include "test.h"

#define VCPUS 64u
#define FAR (UINT64_C(1) << 50)

static struct vcpu vcpu[VCPUS];
static uint64_t at[VCPUS]; /* what the heap should hold; 0: nothing */
static uint64_t armed;
static unsigned attended[VCPUS], attends;
static uint64_t order[VCPUS];
static void (*in_attend)(struct vcpu *which);

/* What the heap calls. */
void vcpu_attend(struct vcpu *which)
{
    order[attends++ % VCPUS] = at[which - vcpu];
    attended[which - vcpu]++;
    if (in_attend != NULL) {
        in_attend(which);
    }
}

void timer_arm(uint64_t deadline) { armed = deadline; }

/* The record of a CPU, which is found through GS. */
static struct percpu cpu = {.self = &cpu};
static void be_cpu(void) { REQUIRE_EQ(syscall(SYS_arch_prctl, ARCH_SET_GS, &cpu), 0); }

static uint64_t tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static uint64_t first(void)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < VCPUS; i++) {
        least = at[i] != 0 && at[i] < least ? at[i] : least;
    }
    return least;
}

static void set(unsigned i, uint64_t when)
{
    at[i] = when;
    vcpu_timer(&vcpu[i], when);
}

/* All whose time has passed, the earliest first, each once. */
static void expire(uint64_t now)
{
    unsigned due = 0;
    attends = 0;
    memset(attended, 0, sizeof(attended));
    timers_expire();
    for (unsigned i = 0; i < VCPUS; i++) {
        bool is_due = at[i] != 0 && at[i] <= now;
        CHECK_EQ(attended[i], is_due);
        due += is_due;
        at[i] = is_due ? 0 : at[i];
        CHECK_EQ(vcpu[i].timer.at, at[i]);
    }
    CHECK_EQ(attends, due);
    for (unsigned i = 1; i < due; i++) {
        CHECK_LE(order[i - 1], order[i]);
    }
}

/* Times that are long past or far ahead, some of them equal. */
TEST(heap_is_the_list)
{
    uint64_t seed = test_seed(), steps = test_steps(100000);
    uint64_t start = tsc();
    REQUIRE(start > FAR / 1024);
    be_cpu();
    for (uint64_t step = 0; step < steps; step++) {
        uint64_t r = test_random(&seed);
        unsigned i = (unsigned)(r >> 8) % VCPUS;
        uint64_t when = (r >> 16) % 1000;
        switch (r % 8) {
        case 0:
            set(i, 0);
            break;
        case 1:
            set(i, 1 + when);
            break;
        case 2:
            set(i, at[i]);
            break;
        case 3:
            if ((r >> 32) % 32 == 0) {
                expire(start);
            }
            break;
        default:
            set(i, start + FAR + when);
            break;
        }
        CHECK_EQ(timers_next(UINT64_MAX), first());
        CHECK_EQ(timers_next(500), first() < 500 ? first() : 500);
    }
    for (unsigned i = 0; i < VCPUS; i++) {
        set(i, 0);
    }
    CHECK_EQ(timers_next(UINT64_MAX), UINT64_MAX);
}

/* This CPU's timer is armed anew for what comes before what it was armed for. */
TEST(earlier_times_arm_the_timer)
{
    be_cpu();
    cpu.deadline = 1000;
    vcpu_timer(&vcpu[0], 2000);
    CHECK_EQ(armed, 0);
    vcpu_timer(&vcpu[1], 500);
    CHECK_EQ(armed, 500);
    armed = 0;
    vcpu_timer(&vcpu[1], 0);
    CHECK_EQ(armed, 0);
}

static uint32_t forgotten;
static pthread_t forgetter;

static void *forget(void *which)
{
    be_cpu();
    vcpu_timer(which, 0);
    __atomic_store_n(&forgotten, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void forget_meanwhile(struct vcpu *which)
{
    REQUIRE_EQ(pthread_create(&forgetter, NULL, forget, which), 0);
    usleep(50000);
    CHECK_EQ(__atomic_load_n(&forgotten, __ATOMIC_SEQ_CST), 0);
}

/* A vcpu that is about to be freed is not being woken any more when its timer was taken away. */
TEST(taking_away_waits_for_a_wake_under_way)
{
    be_cpu();
    set(0, 1);
    in_attend = forget_meanwhile;
    timers_expire();
    REQUIRE_EQ(pthread_join(forgetter, NULL), 0);
    CHECK_EQ(forgotten, 1);
}
