/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A domain is made of nothing but memory and a CPU record: a loop that counts. Then another of its
 * memory and context, which counts on from where the first one was.
 */
#include "xc.h"

#include <xen/hvm/save.h>

#define PAGES 64u
#define BATCH 32u                             /* mapped at a time */
enum { TOP = 1, MIDDLE, BOTTOM, CODE, DATA }; /* pages */

/* The loop: inc %rax; mov %rax, DATA; mov %r15, DATA + 8; movq %xmm1, DATA + 16; again */
static const uint8_t loop[] = {0x48, 0xff, 0xc0, 0x48, 0x89, 0x04, 0x25, 0x00, 0x50, 0x00,
                               0x00, 0x4c, 0x89, 0x3c, 0x25, 0x08, 0x50, 0x00, 0x00, 0x66,
                               0x0f, 0xd6, 0x0c, 0x25, 0x10, 0x50, 0x00, 0x00, 0xeb, 0xe2};
#define R15 UINT64_C(0x123456789abcdef0)
#define XMM1 UINT64_C(0xfedcba9876543210)
#define XMM1_AT 176u /* in the FXSAVE area */

struct whole {
    struct hvm_save_descriptor header_is;
    struct hvm_save_header header;
    struct hvm_save_descriptor cpu_is;
    struct hvm_hw_cpu cpu;
    struct hvm_save_descriptor end_is;
};

struct mtrr_only {
    struct hvm_save_descriptor header_is;
    struct hvm_save_header header;
    struct hvm_save_descriptor mtrr_is;
    struct hvm_hw_mtrr mtrr;
    struct hvm_save_descriptor end_is;
};

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

static uint8_t *map(uint32_t id, unsigned first, unsigned count)
{
    uint8_t *at = xc_map_foreign_range(xc, id, (int)(count * PAGE), PROT_READ | PROT_WRITE, first);
    CHECK(at != NULL);
    if (at == NULL) {
        exit(1);
    }
    return at;
}

/* Identity page tables for the first 2 MiB, and the loop. */
static void load(uint32_t id)
{
    uint8_t *memory = map(id, 0, BATCH);
    uint64_t *table[] = {(void *)(memory + TOP * PAGE), (void *)(memory + MIDDLE * PAGE),
                         (void *)(memory + BOTTOM * PAGE)};
    table[0][0] = MIDDLE * PAGE | 7;
    table[1][0] = BOTTOM * PAGE | 7;
    table[2][0] = 0x87;
    memcpy(memory + CODE * PAGE, loop, sizeof(loop));
    munmap(memory, BATCH * PAGE);
}

/* 64-bit code in ring 0, with nothing else. */
static void start(uint32_t id, uint16_t vcpu, uint32_t code_attributes)
{
    static const uint32_t mxcsr = 0x1f80;
    static const uint64_t xmm1 = XMM1;
    struct whole state = {.header_is = {HVM_SAVE_CODE(HEADER), 0, HVM_SAVE_LENGTH(HEADER)},
                          .cpu_is = {HVM_SAVE_CODE(CPU), vcpu, HVM_SAVE_LENGTH(CPU)},
                          .cpu = {.rip = CODE * PAGE,
                                  .rflags = 2,
                                  .r15 = R15,
                                  .cr0 = 0x80000011,
                                  .cr3 = TOP * PAGE,
                                  .cr4 = 0x220, /* PAE, OSFXSR */
                                  .dr6 = 0xffff0ff0,
                                  .dr7 = 0x400,
                                  .cs_sel = 8,
                                  .cs_limit = UINT32_MAX,
                                  .cs_arbytes = code_attributes,
                                  .ss_sel = 16,
                                  .ss_limit = UINT32_MAX,
                                  .ss_arbytes = 0xc93,
                                  .tr_limit = 0x67,
                                  .tr_arbytes = 0x8b,
                                  .msr_efer = 0x500,
                                  .flags = XEN_X86_FPU_INITIALISED}};
    memcpy(state.cpu.fpu_regs + 24, &mxcsr, sizeof(mxcsr));
    memcpy(state.cpu.fpu_regs + XMM1_AT, &xmm1, sizeof(xmm1));
    CHECK(xc_domain_hvm_getcontext(xc, id, context, sizeof(context)) > 0);
    memcpy(&state.header, context + sizeof(struct hvm_save_descriptor), sizeof(state.header));
    CHECK_EQ(info_of(id).nr_online_vcpus, 0);
    CHECK_ERRNO(xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(CPU), vcpu, context,
                                                 sizeof(context)),
                ENOENT);
    CHECK_EQ(xc_domain_hvm_setcontext(xc, id, (void *)&state, sizeof(state)), 0);
    CHECK_EQ(info_of(id).nr_online_vcpus, 1);
}

static uint64_t word(uint32_t id, unsigned i)
{
    uint8_t *page = map(id, DATA, 1);
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
    CHECK(first > 0 && word(id, 0) > first);
    CHECK(info_of(id).cpu_time > ran && !info_of(id).shutdown && !info_of(id).crashed);
    CHECK_EQ(word(id, 1), R15);
    CHECK_EQ(word(id, 2), XMM1);
}

/* Memory and context, which are then equal. */
static uint32_t copy(uint32_t from)
{
    uint32_t to = make(1);
    for (unsigned i = 0; i < PAGES; i += BATCH) {
        uint8_t *source = map(from, i, BATCH), *target = map(to, i, BATCH);
        memcpy(target, source, BATCH * PAGE);
        munmap(source, BATCH * PAGE);
        munmap(target, BATCH * PAGE);
    }
    int size = xc_domain_hvm_getcontext(xc, from, context, sizeof(context));
    CHECK(size > 0);
    CHECK_EQ(xc_domain_hvm_setcontext(xc, to, context, (uint32_t)size), 0);
    CHECK_EQ(xc_domain_hvm_getcontext(xc, to, again, sizeof(again)), size);
    CHECK_EQ(memcmp(context, again, (size_t)size), 0);
    return to;
}

/* As libxc's builder does: memory types of all vcpus, none of which has a state; then one gets it,
 * here the second. The first waits for its start. */
static void one_of_two(void)
{
    struct mtrr_only types = {.header_is = {HVM_SAVE_CODE(HEADER), 0, HVM_SAVE_LENGTH(HEADER)},
                              .mtrr_is = {HVM_SAVE_CODE(MTRR), 0, HVM_SAVE_LENGTH(MTRR)}};
    HVM_SAVE_TYPE(MTRR) mtrr;
    uint32_t id = make(2);
    load(id);
    CHECK(xc_domain_hvm_getcontext(xc, id, context, sizeof(context)) > 0);
    memcpy(&types.header, context + sizeof(struct hvm_save_descriptor), sizeof(types.header));
    for (uint16_t i = 0; i < 2; i++) {
        CHECK_EQ(xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(MTRR), i, &types.mtrr,
                                                  sizeof(types.mtrr)),
                 0);
        CHECK_EQ(types.mtrr.msr_mtrr_def_type, 0x806);
        CHECK_EQ(types.mtrr.msr_pat_cr, 0x0007040600070406);
        types.mtrr.msr_mtrr_def_type = 0x800;
        types.mtrr_is.instance = i;
        CHECK_EQ(xc_domain_hvm_setcontext(xc, id, (void *)&types, sizeof(types)), 0);
        CHECK_EQ(
            xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(MTRR), i, &mtrr, sizeof(mtrr)),
            0);
        CHECK_EQ(memcmp(&mtrr, &types.mtrr, sizeof(mtrr)), 0);
    }
    start(id, 1, 0xa9b);
    int size = xc_domain_hvm_getcontext(xc, id, context, sizeof(context));
    CHECK(size > 0);
    CHECK_EQ(xc_domain_hvm_setcontext(xc, id, context, (uint32_t)size), 0);
    CHECK_EQ(xc_domain_hvm_getcontext(xc, id, again, sizeof(again)), size);
    CHECK_EQ(memcmp(context, again, (size_t)size), 0);
    counts(id);
    CHECK_EQ(info_of(id).nr_online_vcpus, 1);
    destroy(id);
}

/* Without memory, but with a state: no fork takes its place any more. */
static void not_empty(void)
{
    uint32_t id = create(0, 1);
    start(id, 0, 0xa9b);
    CHECK_ERRNO(xc_memshr_fork(xc, TEMPLATE, id, true, false), EINVAL);
    destroy(id);
}

/* A state that the CPU refuses, which no check here knows of: 64-bit and 32-bit code at once. */
static void refused_by_the_cpu(void)
{
    uint32_t id = make(1);
    load(id);
    start(id, 0, 0xe9b);
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    usleep(300000);
    CHECK(info_of(id).crashed);
    CHECK_EQ(word(id, 0), 0);
    destroy(id);
}

void test(void)
{
    uint32_t first = make(1);
    load(first);
    start(first, 0, 0xa9b);
    counts(first);
    CHECK_EQ(xc_domain_pause(xc, first), 0);
    uint64_t reached = word(first, 0);
    uint32_t second = copy(first);
    CHECK_EQ(word(second, 0), reached);
    counts(second);
    CHECK(word(second, 0) > reached);
    CHECK_EQ(word(first, 0), reached); /* that stands still */
    destroy(second);
    counts(first);
    destroy(first);
    one_of_two();
    not_empty();
    refused_by_the_cpu();
}
