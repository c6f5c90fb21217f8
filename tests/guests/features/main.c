/* SPDX-License-Identifier: BSD-2-Clause */
/* What CPUID tells of XSAVE is so, for the XCR0 that is set now, also in a fork; code is executed
 * by huge leaves where the boot's command line or the CPU lets it. */
#include "guest.h"

const char guest_name[] = "features";

#define CR4_OSXSAVE (UINT64_C(1) << 18)
#define MSR_TSC 0x10u
#define MSR_TSC_ADJUST 0x3bu
#define XSAVE_BASIC 576u /* legacy region and header */
enum { X87 = 1, SSE = 2, AVX = 4, AVX512 = 7 << 5, PKRU = 1 << 9 };

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

static void set_xcr0(uint32_t value)
{
    __asm__ volatile("xsetbv" : : "c"(0), "a"(value), "d"(0) : "memory");
}

static uint32_t get_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static uint32_t size_of(uint32_t components)
{
    uint32_t size = XSAVE_BASIC;
    for (unsigned i = 2; i < 32; i++) {
        struct cpuid c = cpuid(0xd, i);
        if (components & UINT32_C(1) << i && c.ebx + c.eax > size) {
            size = c.ebx + c.eax;
        }
    }
    return size;
}

/* Of those that CPUID offers: all that a CPU lets be set together. */
static void check_sizes(uint32_t all)
{
    const uint32_t sets[] = {
        X87, X87 | SSE, X87 | SSE | AVX, X87 | SSE | PKRU, X87 | SSE | AVX | AVX512, all};
    for (unsigned i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        if (sets[i] & ~all) {
            continue;
        }
        set_xcr0(sets[i]);
        CHECK_EQ(get_xcr0(), sets[i]);
        CHECK_EQ(cpuid(0xd, 0).ebx, size_of(sets[i]));
        CHECK_EQ(cpuid(0xd, 0).ecx, size_of(all));
    }
}

/* Features whose registers are a component, and the component, come together. */
static void check_components(uint32_t all)
{
    struct cpuid one = cpuid(1, 0), seven = cpuid(7, 0);
    CHECK_EQ(one.ecx >> 28 & 1, (all & AVX) != 0);
    CHECK_EQ(seven.ebx >> 16 & 1, (all & AVX512) != 0);
    CHECK_EQ(seven.ecx >> 3 & 1, (all & PKRU) != 0);
    for (unsigned i = 2; i < 32; i++) {
        CHECK_EQ(cpuid(0xd, i).eax != 0, all >> i & 1);
    }
}

static void check_fork(uint32_t all)
{
    uint32_t id;
    set_xcr0(all);
    if (fork_self(1, 0, &id) == 1) {
        CHECK_EQ(get_xcr0(), all);
        CHECK_EQ(cpuid(0xd, 0).ebx, size_of(all));
        set_xcr0(X87);
        yield();
        CHECK_EQ(get_xcr0(), X87);
        CHECK_EQ(cpuid(0xd, 0).ebx, XSAVE_BASIC);
        leave(3);
    }
    wait_for(id, 3);
    CHECK_EQ(get_xcr0(), all);
    CHECK_EQ(cpuid(0xd, 0).ebx, size_of(all));
    destroy(id);
}

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

/* TSC_ADJUST is what was added to the TSC, by a write to either, and by nobody else. */
static void check_tsc_adjust(void)
{
    const uint64_t far = UINT64_C(1) << 50;
    uint32_t id;
    CHECK_EQ(cpuid(7, 0).ebx >> 1 & 1, 1);
    CHECK_EQ(rdmsr(MSR_TSC_ADJUST), 0);
    uint64_t before = cycles();
    wrmsr(MSR_TSC_ADJUST, far);
    CHECK(cycles() - before >= far && cycles() - before < far + far / 2);
    CHECK_EQ(rdmsr(MSR_TSC_ADJUST), far);
    if (fork_self(1, 0, &id) == 1) {
        CHECK_EQ(rdmsr(MSR_TSC_ADJUST), far);
        CHECK(cycles() - before < far + far / 2);
        leave(4);
    }
    wait_for(id, 4);
    destroy(id);
    wrmsr(MSR_TSC, before); /* some time ago */
    CHECK(cycles() - before < far / 2);
    CHECK((int64_t)rdmsr(MSR_TSC_ADJUST) < 0);
    wrmsr(MSR_TSC_ADJUST, 0);
    CHECK(cycles() - before < far / 2);
}

/* The command line tells the largest leaf by which code is to be executed: 4K, 2M or 1G. */
static unsigned expected_order(void)
{
    switch (guest_command[0]) {
    case '1':
        return 2;
    case '2':
        return 1;
    case '4':
        return 0;
    default:
        return guest_amd ? 1 : 0;
    }
}

static void check_leaf(void)
{
    unsigned order = expected_order();
    uint64_t fresh = (uint64_t)guest_end + 2 * MIB;
    struct cleave_lookup leaf = lookup((uint64_t)check_leaf);
    CHECK_EQ(leaf.order, order);
    CHECK_EQ(leaf.rights, RWX);
    CHECK_EQ(lookup(fresh).kind, order == 2 ? 2 : 0);
    *word(fresh) = 1; /* nobody fetches there */
    leaf = lookup(fresh);
    CHECK_EQ(leaf.order, order == 2 ? 2 : 1);
    CHECK_EQ(leaf.rights, order == 0 ? RW : RWX);
}

void guest_story(void)
{
    uint64_t cr4;
    uint32_t all = cpuid(0xd, 0).eax;
    CHECK(cpuid(1, 0).ecx >> 26 & 1);
    CHECK_EQ(cpuid(1, 0).ecx >> 27 & 1, 0);
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_OSXSAVE));
    CHECK_EQ(cpuid(1, 0).ecx >> 27 & 1, 1);
    CHECK_EQ(cpuid(0x80000007, 0).edx >> 8 & 1, 1); /* the TSC is invariant */
    check_components(all);
    check_sizes(all);
    check_leaf();
    check_tsc_adjust();
    check_fork(all);
    audit_clean();
}
