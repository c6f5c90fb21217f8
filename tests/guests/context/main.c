/* SPDX-License-Identifier: BSD-2-Clause */
/* Domains that count, made of memory and a CPU record: in 64-bit mode, and under PAE paging, where
 * one CPU has the top of the page tables in its registers. Copies count on. */
#define __XEN_TOOLS__ 1
#include "guest.h"
#include "xen.h"

#include <xen/domctl.h>
#include <xen/hvm/save.h>

const char guest_name[] = "context";

#define PAGES 8u
#define WINDOW (64 * MIB) /* where pages of others are mapped */
#define CONTEXT_MAX (64 * KIB)
#define WAIT_CYCLES (UINT64_C(20) << 30)
#define ROUND_CYCLES (UINT64_C(1) << 22)
enum { TOP = 1, MIDDLE, BOTTOM, CODE, DATA }; /* pages */

struct whole {
    struct hvm_save_descriptor header_is;
    struct hvm_save_header header;
    struct hvm_save_descriptor cpu_is;
    struct hvm_hw_cpu cpu;
    struct hvm_save_descriptor end_is;
};

struct mode {
    const char *name;
    uint8_t code[32];
    uint64_t cr0, cr4, efer;
    uint32_t code_attributes;
};

/* inc RAX or EAX; mov it, DATA; mov RSI or ESI, DATA + 8; again */
static const struct mode modes[] = {
    {"64-bit",
     {0x48, 0xff, 0xc0, 0x48, 0x89, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00,
      0x48, 0x89, 0x34, 0x25, 0x08, 0x50, 0x00, 0x00, 0xeb, 0xeb},
     0x80000011,
     0x20,
     0x500,
     0xa9b},
    {"PAE",
     {0x40, 0xa3, 0x00, 0x50, 0x00, 0x00, 0x89, 0x35, 0x08, 0x50, 0x00, 0x00, 0xeb, 0xf2},
     0x80000011,
     0x20,
     0,
     0xc9b},
};
#define RSI 0x12345678u

static uint8_t context[CONTEXT_MAX], again[CONTEXT_MAX];

/* --- Calls ------------------------------------------------------------------------------------ */

static int64_t domctl(uint32_t command, uint32_t domain, struct xen_domctl *op)
{
    op->cmd = command;
    op->interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    op->domain = (domid_t)domain;
    return xen_call(__HYPERVISOR_domctl, (uint64_t)op, 0, 0);
}

static int64_t simple(uint32_t command, uint32_t domain)
{
    struct xen_domctl op = {0};
    return domctl(command, domain, &op);
}

static int64_t get(uint32_t domain, uint8_t *to, uint32_t size)
{
    struct xen_domctl op = {.u.hvmcontext.size = size};
    op.u.hvmcontext.buffer.p = to;
    int64_t result = domctl(XEN_DOMCTL_gethvmcontext, domain, &op);
    return result == 0 ? op.u.hvmcontext.size : result;
}

static int64_t set(uint32_t domain, const void *from, uint32_t size)
{
    struct xen_domctl op = {.u.hvmcontext.size = size};
    op.u.hvmcontext.buffer.p = (uint8_t *)from;
    return domctl(XEN_DOMCTL_sethvmcontext, domain, &op);
}

static uint32_t flags_of(uint32_t domain)
{
    struct xen_domctl op = {0};
    CHECK_EQ(domctl(XEN_DOMCTL_getdomaininfo, domain, &op), 0);
    CHECK_EQ(op.domain, domain);
    return op.u.getdomaininfo.flags;
}

static volatile uint64_t *map_page(uint32_t domain, uint64_t page)
{
    map_foreign(domain, page, WINDOW + page * PAGE);
    return word(WINDOW + page * PAGE);
}

static uint32_t make(void)
{
    uint64_t list[PAGES];
    struct xen_domctl op = {
        .u.createdomain = {.flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap, .max_vcpus = 1}};
    CHECK_EQ(domctl(XEN_DOMCTL_createdomain, 0, &op), 0);
    uint32_t id = op.domain;
    op = (struct xen_domctl){.u.max_mem.max_memkb = PAGES * 4};
    CHECK_EQ(domctl(XEN_DOMCTL_max_mem, id, &op), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        list[i] = i;
    }
    struct xen_memory_reservation all = {.nr_extents = PAGES, .domid = (domid_t)id};
    set_xen_guest_handle(all.extent_start, list);
    CHECK_EQ(xen_call(__HYPERVISOR_memory_op, XENMEM_populate_physmap, (uint64_t)&all, 0), PAGES);
    return id;
}

/* --- Domains that count ----------------------------------------------------------------------- */

static void load(uint32_t id, const struct mode *mode)
{
    bool pae = mode->efer == 0;
    *map_page(id, TOP) = MIDDLE * PAGE | (pae ? 1 : 7);
    *map_page(id, MIDDLE) = pae ? 0x83 : BOTTOM * PAGE | 7;
    *map_page(id, BOTTOM) = 0x83;
    volatile uint8_t *code = (volatile uint8_t *)map_page(id, CODE);
    for (unsigned i = 0; i < sizeof(mode->code); i++) {
        code[i] = mode->code[i];
    }
}

static int64_t start(uint32_t id, const struct mode *mode, uint32_t code_attributes)
{
    CHECK(get(id, context, CONTEXT_MAX) > 0);
    struct whole state = {
        .header_is = {HVM_SAVE_CODE(HEADER), 0, HVM_SAVE_LENGTH(HEADER)},
        .header = *(struct hvm_save_header *)(context + sizeof(struct hvm_save_descriptor)),
        .cpu_is = {HVM_SAVE_CODE(CPU), 0, HVM_SAVE_LENGTH(CPU)},
        .cpu = {.rip = CODE * PAGE,
                .rsi = RSI,
                .cr0 = mode->cr0,
                .cr3 = TOP * PAGE,
                .cr4 = mode->cr4,
                .msr_efer = mode->efer,
                .dr6 = 0xffff0ff0,
                .dr7 = 0x400,
                .cs_limit = UINT32_MAX,
                .cs_arbytes = code_attributes,
                .ss_limit = UINT32_MAX,
                .ss_arbytes = 0xc93,
                .ds_limit = UINT32_MAX,
                .ds_arbytes = 0xc93,
                .tr_limit = 0x67,
                .tr_arbytes = 0x8b}};
    return set(id, &state, sizeof(state));
}

static uint64_t count_of(uint32_t id) { return *map_page(id, DATA); }

static void counts(uint32_t id, uint64_t from)
{
    volatile uint64_t *data = map_page(id, DATA);
    uint64_t began = cycles();
    CHECK_EQ(simple(XEN_DOMCTL_unpausedomain, id), 0);
    while (data[0] <= from + 100 && cycles() - began < WAIT_CYCLES) {
        yield();
    }
    CHECK(data[0] > from + 100);
    CHECK_EQ(data[1], RSI);
    CHECK(!(flags_of(id) & XEN_DOMINF_shutdown));
    CHECK_EQ(simple(XEN_DOMCTL_pausedomain, id), 0);
}

static bool same(const uint8_t *a, const uint8_t *b, int64_t size)
{
    while (size > 0 && a[size - 1] == b[size - 1]) {
        size--;
    }
    return size == 0;
}

static uint32_t copy(uint32_t from)
{
    static uint64_t page[PAGE / 8];
    uint32_t to = make();
    for (unsigned i = 0; i < PAGES; i++) {
        volatile uint64_t *at = map_page(from, i);
        for (unsigned k = 0; k < PAGE / 8; k++) {
            page[k] = at[k];
        }
        at = map_page(to, i);
        for (unsigned k = 0; k < PAGE / 8; k++) {
            at[k] = page[k];
        }
    }
    int64_t size = get(from, context, CONTEXT_MAX);
    CHECK(size > 0);
    CHECK_EQ(set(to, context, (uint32_t)size), 0);
    CHECK_EQ(get(to, again, CONTEXT_MAX), size);
    CHECK(same(context, again, size));
    return to;
}

/* Written over itself, and with a value that must not be loaded: nothing changes. */
static void written_again(uint32_t id)
{
    int64_t size = get(id, context, CONTEXT_MAX);
    struct whole *state = (struct whole *)context; /* up to the CPU record */
    CHECK_EQ(set(id, context, (uint32_t)size), 0);
    uint64_t *const values[] = {&state->cpu.msr_lstar, &state->cpu.shadow_gs, &state->cpu.dr6,
                                &state->cpu.msr_syscall_mask, &state->cpu.msr_tsc_aux};
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        uint64_t was = *values[i];
        *values[i] = UINT64_C(1) << 47;
        CHECK_EQ(set(id, context, (uint32_t)size), -XEN_EINVAL);
        *values[i] = was;
        CHECK_EQ(get(id, again, CONTEXT_MAX), size);
        CHECK(same(context, again, size));
    }
}

static void count_in(const struct mode *mode)
{
    uint32_t first = make();
    load(first, mode);
    CHECK_EQ(start(first, mode, mode->code_attributes), 0);
    counts(first, 0);
    written_again(first);
    uint64_t reached = count_of(first);
    uint32_t second = copy(first);
    counts(second, reached);
    CHECK_EQ(count_of(first), reached);
    counts(first, reached);
    CHECK_EQ(simple(XEN_DOMCTL_destroydomain, first), 0);
    CHECK_EQ(simple(XEN_DOMCTL_destroydomain, second), 0);
    say("%s: counted", mode->name);
}

/* No CPU has code that is of 64 and of 32 bits. */
static void refused_by_the_cpu(void)
{
    uint64_t began = cycles();
    uint32_t id = make();
    load(id, &modes[0]);
    CHECK_EQ(start(id, &modes[0], 0xe9b), 0);
    CHECK_EQ(simple(XEN_DOMCTL_unpausedomain, id), 0);
    while (!(flags_of(id) & XEN_DOMINF_shutdown) && cycles() - began < WAIT_CYCLES) {
        yield();
    }
    CHECK_EQ(flags_of(id) >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask, SHUTDOWN_crash);
    CHECK_EQ(count_of(id), 0);
    CHECK_EQ(simple(XEN_DOMCTL_destroydomain, id), 0);
}

/* Contexts with a few wrong bits: refused, or whatever the domain then does is its own affair. */
static void any_bits(void)
{
    static uint8_t base[CONTEXT_MAX];
    const struct mode *mode = &modes[0];
    uint64_t seed = 20261121;
    unsigned rounds = guest_amd ? 400 : 60, taken = 0, ended = 0; /* that emulator is slower */
    uint32_t id = 0;
    for (unsigned round = 0; round < rounds; round++) {
        if (id == 0) {
            id = make();
            load(id, mode);
            CHECK_EQ(start(id, mode, mode->code_attributes), 0);
        }
        int64_t size = get(id, base, CONTEXT_MAX);
        CHECK(size > 0);
        /* Most of them in the CPU record, which comes first. */
        uint64_t bits = 8 * (uint64_t)(round % 4 != 0 ? (int64_t)sizeof(struct whole) : size);
        for (unsigned flips = 1 + random_next(&seed) % 2; flips > 0; flips--) {
            uint64_t bit = random_next(&seed) % bits;
            base[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        int64_t result = set(id, base, (uint32_t)size);
        CHECK(result == 0 || result == -XEN_EINVAL);
        if (result != 0) {
            continue;
        }
        taken++;
        CHECK_EQ(simple(XEN_DOMCTL_unpausedomain, id), 0);
        for (uint64_t began = cycles(); cycles() - began < ROUND_CYCLES;) {
            yield();
        }
        bool over = (flags_of(id) & XEN_DOMINF_shutdown) != 0;
        CHECK_EQ(simple(XEN_DOMCTL_pausedomain, id), 0);
        if (over || round % 8 == 0) {
            ended += over;
            CHECK_EQ(simple(XEN_DOMCTL_destroydomain, id), 0);
            id = 0;
        }
    }
    say("of %u contexts with wrong bits %u were taken, which ended %u domains", rounds, taken,
        ended);
    CHECK(taken > 0 && taken < rounds);
    if (id != 0) {
        CHECK_EQ(simple(XEN_DOMCTL_destroydomain, id), 0);
    }
}

void guest_story(void)
{
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        count_in(&modes[i]);
    }
    refused_by_the_cpu();
    any_bits();
    audit_clean();
}
