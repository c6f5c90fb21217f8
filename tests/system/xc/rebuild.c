/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A domain is made of nothing but memory and a CPU record: a loop that counts. Then another of its
 * memory and context, which counts on from where the first one was.
 */
#include "xc.h"

#define PAGES 64u
#define BATCH 32u /* pages mapped at a time */

static uint8_t context[64 << 10], again[64 << 10];

static uint32_t make(unsigned vcpus)
{
    static xen_pfn_t list[PAGES];
    uint32_t id = create(0, vcpus);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, PAGES * 4), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        list[i] = i;
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, PAGES, 0, 0, list), 0);
    return id;
}

/* The state that a vcpu without one gets, for the loop. */
static void start(uint32_t id, uint16_t vcpu, uint32_t code_attributes)
{
    ANSWER_EQ(info_of(id).nr_online_vcpus, 0);
    CHECK_ERRNO(xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(CPU), vcpu, context,
                                                 sizeof(context)),
                ENODATA);
    loop_start(id, vcpu, code_attributes);
    ANSWER_EQ(info_of(id).nr_online_vcpus, 1);
}

static uint64_t word(uint32_t id, unsigned i)
{
    uint8_t *page = map_pages(id, LOOP_DATA, 1, PROT_READ);
    uint64_t value = ((volatile uint64_t *)page)[i];
    munmap(page, PAGE);
    return value;
}

static void counts(uint32_t id)
{
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    usleep(300000);
    uint64_t first = word(id, 0), ran = info_of(id).cpu_time;
    usleep(300000);
    ANSWER_EQ(first > 0 && word(id, 0) > first, 1);
    ANSWER_EQ(info_of(id).cpu_time > ran && !info_of(id).shutdown && !info_of(id).crashed, 1);
    ANSWER_EQ(word(id, 1) == LOOP_R15, 1);
    ANSWER_EQ(word(id, 2) == LOOP_XMM1, 1);
}

/* Memory and context, which are then equal. */
static uint32_t copy(uint32_t from)
{
    uint32_t to = make(1);
    for (unsigned i = 0; i < PAGES; i += BATCH) {
        uint8_t *source = map_pages(from, i, BATCH, PROT_READ),
                *target = map_pages(to, i, BATCH, PROT_READ | PROT_WRITE);
        memcpy(target, source, BATCH * PAGE);
        munmap(source, BATCH * PAGE);
        munmap(target, BATCH * PAGE);
    }
    int size = xc_domain_hvm_getcontext(xc, from, context, sizeof(context));
    CHECK(size > 0);
    CHECK_EQ(xc_domain_hvm_setcontext(xc, to, context, (uint32_t)size), 0);
    CHECK_EQ(xc_domain_hvm_getcontext(xc, to, again, sizeof(again)), size);
    ANSWER_EQ(memcmp(context, again, (size_t)size) == 0, 1);
    return to;
}

/* As libxc's builder does: memory types of all vcpus, none of which has a state; then one gets it,
 * here the second. The first waits for its start. */
static void one_of_two(void)
{
    HVM_SAVE_TYPE(MTRR) mtrr;
    uint32_t id = make(2);
    loop_load(id);
    for (uint16_t i = 0; i < 2; i++) {
        struct mtrr_only types = mtrr_context(id, i);
        CHECK_EQ(xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(MTRR), i, &types.mtrr,
                                                  sizeof(types.mtrr)),
                 0);
        ANSWER_EQ(types.mtrr.msr_mtrr_def_type, 0x806);
        ANSWER_EQ(types.mtrr.msr_pat_cr, 0x0007040600070406);
        types.mtrr.msr_mtrr_def_type = 0x800;
        ANSWER_EQ(xc_domain_hvm_setcontext(xc, id, (void *)&types, sizeof(types)), 0);
        CHECK_EQ(
            xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(MTRR), i, &mtrr, sizeof(mtrr)),
            0);
        ANSWER_EQ(memcmp(&mtrr, &types.mtrr, sizeof(mtrr)) == 0, 1);
    }
    start(id, 1, 0xa9b);
    int size = xc_domain_hvm_getcontext(xc, id, context, sizeof(context));
    CHECK(size > 0);
    CHECK_EQ(xc_domain_hvm_setcontext(xc, id, context, (uint32_t)size), 0);
    CHECK_EQ(xc_domain_hvm_getcontext(xc, id, again, sizeof(again)), size);
    ANSWER_EQ(memcmp(context, again, (size_t)size) == 0, 1);
    counts(id);
    ANSWER_EQ(info_of(id).nr_online_vcpus, 1);
    destroy(id);
}

/* Without memory, but with a state: no fork takes its place any more. */
static void not_empty(void)
{
    if (!forks_here("not empty")) {
        return;
    }
    uint32_t id = create(0, 1);
    loop_start(id, 0, 0xa9b);
    CHECK_FAILS(xc_memshr_fork(xc, TEMPLATE, id, true, false), EINVAL);
    destroy(id);
}

/* A state that the CPU refuses, which no check here knows of: 64-bit and 32-bit code at once. */
static void refused_by_the_cpu(void)
{
    uint32_t id = make(1);
    loop_load(id);
    start(id, 0, 0xe9b);
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    usleep(300000);
    ANSWER_EQ(info_of(id).crashed, 1);
    ANSWER_EQ(word(id, 0), 0);
    destroy(id);
}

void test(void)
{
    uint32_t first = make(1);
    loop_load(first);
    start(first, 0, 0xa9b);
    counts(first);
    CHECK_EQ(xc_domain_pause(xc, first), 0);
    uint64_t reached = word(first, 0);
    uint32_t second = copy(first);
    ANSWER_EQ(word(second, 0) == reached, 1);
    counts(second);
    ANSWER_EQ(word(second, 0) > reached, 1);
    ANSWER_EQ(word(first, 0) == reached, 1); /* that stands still */
    destroy(second);
    counts(first);
    destroy(first);
    one_of_two();
    not_empty();
    refused_by_the_cpu();
}
