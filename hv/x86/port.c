/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory core's port on hardware (hv/mm/port.h), but for port_wake() and port_starved(), which
 * are the scheduler's.
 */
#include "port.h"

#include "hvm.h"
#include "platform.h"

void port_copy_pages(void *to, const void *from, uint64_t pages)
{
    uint64_t words = pages * (PAGE_SIZE / 8);
    this_cpu()->words_copied += words;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

void port_zero_pages(void *to, uint64_t pages)
{
    uint64_t words = pages * (PAGE_SIZE / 8);
    this_cpu()->words_zeroed += words;
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(UINT64_C(0)) : "memory");
}

void port_flush_local(struct mm_ctx *ctx, pfn_t tag)
{
    (void)ctx;
    hvm->flush_root((uint64_t)tag.v << PAGE_SHIFT);
}

void port_kick(struct mm_ctx *ctx, unsigned cpu)
{
    (void)ctx;
    /* First the flag: the CPU looks at it when the interrupt came. */
    __atomic_store_n(&cpu_at(cpu)->kicked, 1, __ATOMIC_SEQ_CST);
    cpu_send(cpu, VECTOR_KICK);
}

void port_relax(struct mm_ctx *ctx)
{
    struct percpu *cpu = this_cpu();

    cpu_pause();
    if (__atomic_load_n(&cpu->kicked, __ATOMIC_RELAXED) &&
        __atomic_exchange_n(&cpu->kicked, 0, __ATOMIC_SEQ_CST)) {
        /* That it runs nothing any more is seen before it enters a guest again. */
        (void)flush_acknowledge(ctx);
    }
}

bool port_refuse_allocation(void) { return false; }

uint64_t port_now(void) { return tsc_to_ns(read_tsc()); }

static bool rdrand(uint64_t *value)
{
    bool done;
    __asm__ volatile("rdrand %0" : "=r"(*value), "=@ccc"(done));
    return done;
}

/* The finalizer of SplitMix64: each bit of the input changes about half of the output's. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/*
 * Without RDRAND it is the TSC's jitter, mixed: a guest that reads the same TSC and sees many of
 * the numbers could predict some. The boot log says which of the two is in use.
 */
uint64_t port_random(void)
{
    static uint64_t state;
    uint64_t value = 0;

    if (cpuid(1, 0).ecx >> 30 & 1) {
        for (unsigned i = 0; i < 10; i++) {
            if (rdrand(&value)) {
                return value;
            }
        }
    }
    value = mix(read_tsc() ^ (uint64_t)this_cpu());
    return mix(__atomic_add_fetch(&state, value | 1, __ATOMIC_RELAXED));
}

_Noreturn void port_panic(const char *file, int line, const char *what)
{
    crash("%s:%d: %s", file, line, what);
}

#ifdef MM_HOOKS
void port_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b)
{
    (void)ctx, (void)point, (void)a, (void)b;
}
#endif
