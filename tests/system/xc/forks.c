/* SPDX-License-Identifier: BSD-2-Clause */
/* Forks and resets with each of their flags; and writes through maps that were made before. */
#include "xc.h"

#define PAGES 64u
enum { DATA = TINY_FREE, MAPPED }; /* pages */

/* inc %rax; mov %rax, DATA; again */
static const uint8_t counter[] = {0x48, 0xff, 0xc0, 0x48, 0x89, 0x04, 0x25,
                                  0x00, 0x50, 0x00, 0x00, 0xeb, 0xf3};

static struct hvm_hw_cpu cpu_of(uint32_t id)
{
    struct hvm_hw_cpu cpu;
    CHECK_EQ(xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(CPU), 0, &cpu, sizeof(cpu)), 0);
    return cpu;
}

static uint64_t word(uint32_t id, unsigned page)
{
    uint8_t *at = map_pages(id, page, 1, PROT_READ);
    uint64_t value = *(volatile uint64_t *)at;
    munmap(at, PAGE);
    return value;
}

static void run_a_while(uint32_t id)
{
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    usleep(100000);
    CHECK_EQ(xc_domain_pause(xc, id), 0);
    CHECK(!info_of(id).shutdown);
}

static uint32_t child_of(uint32_t parent)
{
    uint32_t id = create(0, 1);
    CHECK_EQ(xc_memshr_fork(xc, parent, id, true, false), 0);
    return id;
}

/* A tiny domain that has counted, and stands still. */
static uint32_t make_parent(void)
{
    uint32_t id = tiny_make(PAGES, counter, sizeof(counter));
    tiny_start(id);
    run_a_while(id);
    return id;
}

/* Whatever is asked of the interrupts of a Linux that mostly sleeps: it is woken by them, or it
 * stays where it was. */
static void flags_of_forks(void)
{
    for (unsigned i = 0; i < 4; i++) {
        bool blocked = i / 2 != 0;
        uint32_t id = create(0, 1);
        CHECK_EQ(xc_memshr_fork(xc, TEMPLATE, id, i % 2 != 0, blocked), 0);
        CHECK_EQ(xc_domain_unpause(xc, id), 0);
        sleep(1);
        uint64_t ran = info_of(id).cpu_time;
        sleep(2);
        CHECK(!info_of(id).shutdown);
        CHECK(blocked ? info_of(id).cpu_time == ran : info_of(id).cpu_time > ran);
        destroy(id);
    }
}

/* State or memory go back by themselves. */
static void flags_of_resets(void)
{
    uint32_t parent = make_parent(), id = child_of(parent);
    struct hvm_hw_cpu was = cpu_of(id), is;
    uint64_t counted = word(id, DATA);
    CHECK(counted > 0);
    run_a_while(id);
    is = cpu_of(id);
    CHECK(is.rax > was.rax && word(id, DATA) > counted);
    uint64_t further = word(id, DATA);
    CHECK_ERRNO(xc_memshr_fork_reset(xc, id, false, false), EINVAL);
    is.rax++; /* what is compared is read anew */
    CHECK_EQ(xc_memshr_fork_reset(xc, id, true, false), 0);
    is = cpu_of(id);
    CHECK_EQ(memcmp(&is, &was, offsetof(struct hvm_hw_cpu, tsc)), 0);
    CHECK_EQ(word(id, DATA), further);
    run_a_while(id);
    CHECK(word(id, DATA) != further);
    is = cpu_of(id);
    CHECK(is.rax > was.rax);
    CHECK_EQ(xc_memshr_fork_reset(xc, id, false, true), 0);
    CHECK_EQ(word(id, DATA), counted);
    CHECK_EQ(cpu_of(id).rax, is.rax);
    run_a_while(id);
    CHECK_EQ(xc_memshr_fork_reset(xc, id, true, true), 0);
    is = cpu_of(id);
    CHECK_EQ(memcmp(&is, &was, offsetof(struct hvm_hw_cpu, tsc)), 0);
    CHECK_EQ(word(id, DATA), counted);
    CHECK(info_of(id).paused);
    run_a_while(id);
    CHECK(word(id, DATA) > counted);
    destroy(id);
    CHECK_EQ(word(parent, DATA), counted);
    destroy(parent);
}

/* What is written through a map that was there before the fork is the parent's alone. */
static void maps_over_forks(void)
{
    uint32_t parent = make_parent();
    volatile uint64_t *written = (uint64_t *)map_pages(parent, MAPPED, 1, PROT_READ | PROT_WRITE);
    volatile uint64_t *fresh = (uint64_t *)map_pages(parent, MAPPED + 1, 1, PROT_READ | PROT_WRITE);
    *written = 11;
    CHECK_EQ(*fresh, 0);
    uint32_t id = child_of(parent), second;
    *written = 12;
    *fresh = 13;
    CHECK_EQ(word(parent, MAPPED), 12);
    CHECK_EQ(word(parent, MAPPED + 1), 13);
    CHECK_EQ(word(id, MAPPED), 11);
    CHECK_EQ(word(id, MAPPED + 1), 0);
    second = child_of(parent);
    *written = 14;
    CHECK_EQ(word(second, MAPPED), 12);
    CHECK_EQ(word(id, MAPPED), 11);
    CHECK_EQ(xc_memshr_fork_reset(xc, id, true, true), 0);
    CHECK_EQ(word(id, MAPPED), 11);
    CHECK_EQ(word(id, MAPPED + 1), 0);
    munmap((void *)(uintptr_t)written, PAGE);
    munmap((void *)(uintptr_t)fresh, PAGE);
    destroy(id);
    destroy(second);
    destroy(parent);
}

/* A fork whose pages are mapped is not reset: the map would show what nobody has. */
static void maps_over_resets(void)
{
    uint32_t parent = make_parent(), id = child_of(parent);
    volatile uint64_t *page = (uint64_t *)map_pages(id, MAPPED, 1, PROT_READ | PROT_WRITE);
    *page = 21;
    CHECK_ERRNO(xc_memshr_fork_reset(xc, id, true, true), EBUSY);
    CHECK_ERRNO(xc_memshr_fork_reset(xc, id, false, true), EBUSY);
    CHECK_EQ(word(id, MAPPED), 21);
    CHECK_EQ(xc_memshr_fork_reset(xc, id, true, false), 0);
    *page = 22;
    CHECK_EQ(word(id, MAPPED), 22);
    CHECK_EQ(word(parent, MAPPED), 0);
    munmap((void *)(uintptr_t)page, PAGE);
    CHECK_EQ(xc_memshr_fork_reset(xc, id, true, true), 0);
    CHECK_EQ(word(id, MAPPED), 0);
    run_a_while(id);
    destroy(id);
    destroy(parent);
}

void test(void)
{
    flags_of_resets();
    maps_over_forks();
    maps_over_resets();
    flags_of_forks();
}
