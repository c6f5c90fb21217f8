/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Local APIC by its page, or by MSRs where the firmware enabled x2APIC or the command line asks for
 * it (SDM 3A 10.4, 10.12). A CPU touches its own only. The two 8259s are masked.
 */
#include "apic.h"

#include "boot/boot.h"

enum {
    REG_ID = 0x20,
    REG_PRIORITY = 0x80,
    REG_EOI = 0xb0,
    REG_SPURIOUS = 0xf0,
    REG_ERROR = 0x280,
    REG_COMMAND = 0x300,
    REG_COMMAND_HIGH = 0x310,
    REG_LVT_TIMER = 0x320,
    REG_LVT_THERMAL = 0x330,
    REG_LVT_COUNTERS = 0x340,
    REG_LVT_LINT0 = 0x350,
    REG_LVT_LINT1 = 0x360,
    REG_LVT_ERROR = 0x370,
    REG_TIMER_INITIAL = 0x380,
    REG_TIMER_CURRENT = 0x390,
    REG_TIMER_DIVIDE = 0x3e0,
    REG_VERSION = 0x30
};
enum { LVT_MASKED = 1 << 16, LVT_NMI = 4 << 8, SOFTWARE_ENABLE = 1 << 8, DIVIDE_BY_1 = 0xb };
enum { COMMAND_ASSERT = 1 << 14, COMMAND_PENDING = 1 << 12, POLLS = 1000000 };
#define BASE_X2APIC (UINT64_C(1) << 10)
#define BASE_ENABLE (UINT64_C(1) << 11)
#define MSR_X2APIC 0x800u

static bool x2apic;

static volatile uint32_t *page_register(unsigned reg)
{
    return (volatile uint32_t *)(LAYOUT_APIC + reg);
}
static uint32_t apic_read(unsigned reg)
{
    return x2apic ? (uint32_t)rdmsr(MSR_X2APIC + reg / 16) : *page_register(reg);
}
static void apic_write(unsigned reg, uint32_t value)
{
    if (x2apic) {
        wrmsr(MSR_X2APIC + reg / 16, value);
    } else {
        *page_register(reg) = value;
    }
}

/* Moves their vectors past the exceptions and masks all their lines: nothing here uses them. */
static void pic_mask(void)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } setup[] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28}, {0x21, 4},
                 {0xa1, 2},    {0x21, 1},    {0xa1, 1},    {0x21, 0xff}, {0xa1, 0xff}};
    for (unsigned i = 0; i < sizeof(setup) / sizeof(setup[0]); i++) {
        outb(setup[i].port, setup[i].value);
        outb(0x80, 0); /* old ones need a moment */
    }
}

void apic_init(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);

    pic_mask();
    x2apic = (base & BASE_ENABLE) && (base & BASE_X2APIC);
    x2apic |= boot_option("x2apic") && (cpuid(1, 0).ecx >> 21 & 1);
    if (!x2apic) {
        paging_map(LAYOUT_APIC, base & UINT64_C(0x000ffffffffff000), PAGE_SIZE,
                   PAGE_WRITE | PAGE_UNCACHED | PAGE_NX);
    }
    apic_enable();
}

void apic_enable(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE), wanted = base | BASE_ENABLE;

    wanted |= x2apic ? BASE_X2APIC : 0;
    if (wanted != base) {
        wrmsr(MSR_APIC_BASE, wanted);
    }
    unsigned last = apic_read(REG_VERSION) >> 16 & 0xff;
    apic_write(REG_SPURIOUS, SOFTWARE_ENABLE | VECTOR_SPURIOUS);
    apic_write(REG_LVT_TIMER, VECTOR_TIMER); /* not masked, one shot */
    if (last >= 4) {
        apic_write(REG_LVT_COUNTERS, LVT_MASKED);
    }
    if (last >= 5) {
        apic_write(REG_LVT_THERMAL, LVT_MASKED);
    }
    apic_write(REG_LVT_LINT0, LVT_MASKED);
    apic_write(REG_LVT_LINT1, LVT_NMI);
    apic_write(REG_LVT_ERROR, LVT_MASKED);
    apic_write(REG_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(REG_TIMER_INITIAL, 0);
    apic_write(REG_PRIORITY, 0);
}

uint32_t apic_id(void)
{
    uint32_t id = apic_read(REG_ID);
    return x2apic ? id : id >> 24;
}

void apic_end_of_interrupt(void) { apic_write(REG_EOI, 0); }
void apic_timer_set(uint32_t ticks) { apic_write(REG_TIMER_INITIAL, ticks); }
uint32_t apic_timer_get(void) { return apic_read(REG_TIMER_CURRENT); }

void apic_send(uint32_t to, uint32_t command)
{
    command |= COMMAND_ASSERT;
    if (x2apic) {
        /* The write does not wait for stores before it (SDM 3A 10.12.3); the receiver reads them.
         */
        __asm__ volatile("mfence; lfence" : : : "memory");
        wrmsr(MSR_X2APIC + REG_COMMAND / 16, (uint64_t)to << 32 | command);
        return;
    }
    for (unsigned i = 0; (apic_read(REG_COMMAND) & COMMAND_PENDING) && i < POLLS; i++) {
        cpu_pause();
    }
    apic_write(REG_COMMAND_HIGH, to << 24);
    apic_write(REG_COMMAND, command);
}

void cpu_send(unsigned id, enum interrupt_vector vector)
{
    apic_send(cpu_at(id)->apic_id, APIC_FIXED | (uint32_t)vector);
}

void cpu_take_interrupts(void) { __asm__ volatile("sti; nop; cli" : : : "memory"); }

void cpu_idle(void)
{
    struct percpu *cpu = this_cpu();

    if (__atomic_load_n(&cpu->resched, __ATOMIC_ACQUIRE) ||
        __atomic_load_n(&cpu->kicked, __ATOMIC_ACQUIRE) ||
        __atomic_load_n(&cpu->ticked, __ATOMIC_ACQUIRE)) {
        return;
    }
    /* Whoever sets one of these sends an interrupt afterwards. With interrupts still off it waits
     * in the APIC, and STI lets it in only behind HLT: none is lost in between. */
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}
