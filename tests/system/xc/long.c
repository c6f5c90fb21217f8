/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls that take long are one call for who makes them, alone or in a list, though others run
 * meanwhile: the hypervisor lets go of the CPU and has the same instruction executed again. And
 * calls of other versions than this one.
 */
#include "xc.h"

#include <time.h>

#include "cleave/abi.h"

#define PAGES (128u * 512) /* 256 MiB */
enum { SIZE = TINY_FREE + 1, SAID };
#define LAST (8 + (PAGES - 9) / 3 * 3)

/* Adds 1 to the first word of each third page from 8 on up to the address at SIZE, and says so at
 * SAID: not so many that a block is put together again. */
static const uint8_t toucher[] = {0xbe, 0x00, 0x80, 0x00, 0x00, 0x48, 0x3b, 0x34, 0x25, 0x00, 0x60,
                                  0x00, 0x00, 0x73, 0x0c, 0x48, 0xff, 0x06, 0x48, 0x81, 0xc6, 0x00,
                                  0x30, 0x00, 0x00, 0xeb, 0xea, 0x48, 0xc7, 0x04, 0x25, 0x00, 0x70,
                                  0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0xf3, 0x90, 0xeb, 0xfc};

/* How often this domain has executed the hypercall instruction. */
static uint64_t executed(void)
{
    struct cleave_stat *stat = raw_buffer(1);
    stat->domain = CLEAVE_DOMAIN_SELF;
    CHECK_EQ(
        xencall3(raw, CLEAVE_HYPERCALL, CLEAVE_OP_STAT, (uint64_t)(uintptr_t)stat, sizeof(*stat)),
        0);
    uint64_t count = stat->hypercalls;
    xencall_free_buffer_pages(raw, stat, 1);
    return count;
}

static unsigned long began;
static uint64_t at_call;

static unsigned long ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
}

static void begin(void)
{
    began = ms();
    at_call = executed();
}

/* The call, alone between two that count, was executed again and again. Linux makes a few for its
 * timer meanwhile. */
static void was_cut(const char *what)
{
    uint64_t count = executed() - at_call;
    printf("%s: %lu ms, hypercall executed %lu times\n", what, ms() - began, (unsigned long)count);
    CHECK(count >= 16);
}

/* It goes through its pages, and stands still again. */
static void touch(uint32_t id)
{
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    volatile uint64_t *said = (uint64_t *)map_pages(id, SAID, 1, PROT_READ);
    for (unsigned i = 0; i < 6000 && *said == 0; i++) {
        usleep(10000);
    }
    CHECK_EQ(*said, 1);
    munmap((void *)(uintptr_t)said, PAGE);
    CHECK_EQ(xc_domain_pause(xc, id), 0);
}

static uint32_t fresh_fork(uint32_t parent)
{
    uint32_t id = create(0, 1);
    CHECK_EQ(xc_memshr_fork(xc, parent, id, true, false), 0);
    return id;
}

/* A fork that has written many pages, so that these are to be given back one by one. */
static uint32_t large_fork(uint32_t parent)
{
    uint32_t id = fresh_fork(parent);
    touch(id);
    return id;
}

static uint64_t last_word(uint32_t id)
{
    uint8_t *at = map_pages(id, LAST, 1, PROT_READ);
    uint64_t value = *(volatile uint64_t *)at;
    munmap(at, PAGE);
    return value;
}

/* Before and behind a long call of a list stand calls that show the same thing. */
static void in_a_list(uint32_t id, unsigned number, uint64_t first, uint64_t second, int64_t before,
                      int64_t behind, const char *what)
{
    multicall_entry_t *list = raw_buffer(1);
    domid_t *domid = raw_buffer(1);
    *domid = (domid_t)id;
    list[0] = (multicall_entry_t){.op = __HYPERVISOR_memory_op,
                                  .result = 4711,
                                  .args = {XENMEM_maximum_gpfn, (uint64_t)(uintptr_t)domid}};
    list[1] = (multicall_entry_t){.op = number, .result = 4711, .args = {first, second}};
    list[2] = list[0];
    begin();
    CHECK_EQ(xencall2(raw, __HYPERVISOR_multicall, (uint64_t)(uintptr_t)list, 3), 0);
    was_cut(what);
    CHECK_EQ((int64_t)list[0].result, before);
    CHECK_EQ((int64_t)list[1].result, 0);
    CHECK_EQ((int64_t)list[2].result, behind);
    xencall_free_buffer_pages(raw, domid, 1);
    xencall_free_buffer_pages(raw, list, 1);
}

static void long_calls(uint32_t parent)
{
    uint32_t id = large_fork(parent);
    CHECK_EQ(last_word(id), 1);
    begin();
    CHECK_EQ(xc_memshr_fork_reset(xc, id, true, true), 0);
    was_cut("reset");
    CHECK_EQ(last_word(id), 0);
    destroy(id);

    id = large_fork(parent);
    struct xen_mem_sharing_op *reset = raw_buffer(1);
    reset->op = XENMEM_sharing_op_fork_reset;
    reset->domain = (domid_t)id;
    reset->u.fork.flags = XENMEM_FORK_RESET_STATE | XENMEM_FORK_RESET_MEMORY;
    in_a_list(id, __HYPERVISOR_memory_op, XENMEM_sharing_op, (uint64_t)(uintptr_t)reset, PAGES - 1,
              PAGES - 1, "reset in a list");
    CHECK_EQ(last_word(id), 0);
    xencall_free_buffer_pages(raw, reset, 1);
    destroy(id);

    id = large_fork(parent);
    begin();
    CHECK_EQ(xc_domain_destroy(xc, id), 0);
    was_cut("destroy");
    CHECK_EQ(info_of(id).domid, DOMID_INVALID);

    id = large_fork(parent);
    struct xen_domctl *op = raw_buffer(1);
    op->cmd = XEN_DOMCTL_destroydomain;
    op->interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    op->domain = (domid_t)id;
    in_a_list(id, __HYPERVISOR_domctl, (uint64_t)(uintptr_t)op, 0, PAGES - 1, -ESRCH,
              "destroy in a list");
    CHECK_EQ(info_of(id).domid, DOMID_INVALID);
    xencall_free_buffer_pages(raw, op, 1);
}

/* What was written, asked of many pages: each bit once, wherever the call is cut. */
static void long_answers(uint32_t parent)
{
    const unsigned written =
        (LAST - 8) / 3 + 1 + 1; /* and SAID; tables of the CPU's, see logdirty */
    uint32_t id = fresh_fork(parent);
    struct xen_domctl *op = raw_buffer(1);
    uint8_t *bits = raw_buffer(PAGES / 8 / PAGE + 1);
    unsigned set = 0, wrong = 0;
    CHECK_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0), 0);
    touch(id);
    for (unsigned i = 0; i < 2; i++) {
        op->cmd = XEN_DOMCTL_shadow_op;
        op->interface_version = XEN_DOMCTL_INTERFACE_VERSION;
        op->domain = (domid_t)id;
        op->u.shadow_op.op = i == 0 ? XEN_DOMCTL_SHADOW_OP_PEEK : XEN_DOMCTL_SHADOW_OP_CLEAN;
        op->u.shadow_op.dirty_bitmap.p = bits;
        op->u.shadow_op.pages = PAGES;
        op->u.shadow_op.stats.dirty_count = 0;
        memset(bits, 0xff, PAGES / 8);
        in_a_list(id, __HYPERVISOR_domctl, (uint64_t)(uintptr_t)op, 0, PAGES - 1, PAGES - 1,
                  i == 0 ? "peek in a list" : "clean in a list");
        unsigned told = op->u.shadow_op.stats.dirty_count;
        CHECK(told >= written && told <= written + 3);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        bool is = (i >= 8 && i <= LAST && (i - 8) % 3 == 0) || i == SAID;
        bool table = i >= TINY_TOP && i <= TINY_BOTTOM;
        set += bits[i / 8] >> i % 8 & 1;
        wrong += !table && is != (bits[i / 8] >> i % 8 & 1);
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(set, op->u.shadow_op.stats.dirty_count);
    CHECK_EQ(raw_domctl(op), 0);
    CHECK_EQ(op->u.shadow_op.stats.dirty_count, 0);
    CHECK_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0), 0);
    xencall_free_buffer_pages(raw, op, 1);
    xencall_free_buffer_pages(raw, bits, PAGES / 8 / PAGE + 1);
    destroy(id);
}

static uint32_t large_domain(void)
{
    uint32_t id = tiny_make(PAGES, toucher, sizeof(toucher));
    uint8_t *size = map_pages(id, SIZE, 1, PROT_READ | PROT_WRITE);
    *(volatile uint64_t *)size = (uint64_t)PAGES * PAGE;
    munmap(size, PAGE);
    tiny_start(id);
    return id;
}

/* Nothing is done for a version that is another one, whatever it asks for. */
static void versions(uint32_t id)
{
    static const int32_t others[] = {-1, 1, -0x15, 0x7fffff00};
    unsigned otherwise = 0;
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        for (uint32_t cmd = 0; cmd < 90; cmd++) {
            struct xen_domctl op = {.cmd = cmd,
                                    .interface_version =
                                        XEN_DOMCTL_INTERFACE_VERSION + (uint32_t)others[i],
                                    .domain = (domid_t)id};
            struct xen_sysctl sys = {.cmd = cmd,
                                     .interface_version =
                                         XEN_SYSCTL_INTERFACE_VERSION + (uint32_t)others[i]};
            otherwise += raw_domctl(&op) == 0 || errno != EACCES;
            otherwise += raw_sysctl(&sys) == 0 || errno != EACCES;
        }
    }
    ANSWER_EQ(otherwise, 0);
    ANSWER_EQ(info_of(id).paused, 1);
    ANSWER_EQ(last_word(id), 0);
}

void test(void)
{
    uint32_t id = large_domain();
    versions(id);
    if (forks_here("long calls")) {
        long_calls(id);
        long_answers(id);
    }
    destroy(id);
}
