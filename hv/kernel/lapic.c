/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers, priorities and messages of the local APIC; see lapic.h. */
#include "lapic.h"

#include "guest_clock.h"
#include "sched.h"

#define BASE_BSP (UINT64_C(1) << 8)
#define BASE_X2APIC (UINT64_C(0xfee00000) | 1u << 11 | 1u << 10)

/* SDM 3A table 10-6; ISR, TMR and IRR are eight each. */
enum {
    MSR_ID = 0x802,
    MSR_VERSION = 0x803,
    MSR_PRIORITY = 0x808,
    MSR_PROCESSOR_PRIORITY = 0x80a,
    MSR_EOI = 0x80b,
    MSR_LOGICAL = 0x80d,
    MSR_SPURIOUS = 0x80f,
    MSR_ISR = 0x810,
    MSR_TMR = 0x818,
    MSR_IRR = 0x820,
    MSR_ERROR = 0x828,
    MSR_COMMAND = 0x830,
    MSR_LVT = 0x832,
    MSR_LVT_ERROR = 0x837,
    MSR_TIMER_INITIAL = 0x838,
    MSR_TIMER_CURRENT = 0x839,
    MSR_TIMER_DIVIDE = 0x83e,
    MSR_SELF = 0x83f
};

#define VERSION (0x14u | (LAPIC_LVTS - 1) << 16)
#define SPURIOUS_ENABLE (1u << 8)
#define SPURIOUS_RESET 0xffu
#define SPURIOUS_BITS 0x1ffu
#define LVT_MASKED (1u << 16)
#define LVT_READ_ONLY (1u << 12 | 1u << 14) /* delivery status, remote IRR */
#define ERROR_SEND_VECTOR (1u << 5)
#define TIMER_DIVIDE_BITS 0xbu

#define COMMAND_RESERVED UINT64_C(0xfff33000)
#define COMMAND_LOGICAL (1u << 11)
#define COMMAND_ASSERT (1u << 14)
#define COMMAND_LEVEL (1u << 15)
#define BROADCAST UINT32_MAX
enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_NMI = 4, MODE_INIT, MODE_SIPI };
enum { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

/* Timer, thermal, performance counters, LINT0, LINT1, error: bits that exist (10.5.1). */
static const uint32_t lvt_bits[LAPIC_LVTS] = {
    LVT_MASKED | 1u << 17 | 1u << 12 | 0xff,
    LVT_MASKED | 1u << 12 | 0x7ff,
    LVT_MASKED | 1u << 12 | 0x7ff,
    LVT_MASKED | 0xf000 | 0x7ff,
    LVT_MASKED | 0xf000 | 0x7ff,
    LVT_MASKED | 1u << 12 | 0xff,
};

/* --- State ------------------------------------------------------------------------------------ */

void lapic_reset(struct lapic *lapic)
{
    for (unsigned i = 0; i < LAPIC_WORDS; i++) {
        __atomic_store_n(&lapic->irr[i], 0, __ATOMIC_RELAXED);
        lapic->isr[i] = 0;
    }
    for (unsigned i = 0; i < LAPIC_LVTS; i++) {
        lapic->lvt[i] = LVT_MASKED;
    }
    __atomic_store_n(&lapic->spurious, SPURIOUS_RESET, __ATOMIC_RELAXED);
    lapic->error = lapic->errors_since = 0;
    lapic->timer_initial = lapic->timer_divide = 0;
    lapic->command = 0;
    lapic->priority = 0;
    lapic->nmi = 0;
    lapic->activity = LAPIC_WAIT_SIPI;
}

void lapic_init(struct lapic *lapic, uint32_t apic_id, bool bsp)
{
    *lapic = (struct lapic){.id = apic_id, .bsp = bsp};
    lapic_reset(lapic);
    lapic->activity = bsp ? LAPIC_ACTIVE : LAPIC_WAIT_SIPI;
}

static bool is_enabled(const struct lapic *lapic)
{
    return (__atomic_load_n(&lapic->spurious, __ATOMIC_RELAXED) & SPURIOUS_ENABLE) != 0;
}

/* LDR: cluster in bits 31:16, one bit of 15:0 (10.12.10.2). */
static uint32_t logical_id(const struct lapic *lapic)
{
    return (lapic->id >> 4) << 16 | 1u << (lapic->id & 15);
}

/* --- Priorities (10.8.3) ---------------------------------------------------------------------- */

static int highest(const uint32_t word[LAPIC_WORDS])
{
    for (unsigned i = LAPIC_WORDS; i-- > 0;) {
        uint32_t bits = __atomic_load_n(&word[i], __ATOMIC_RELAXED);
        if (bits != 0) {
            return (int)(32 * i) + 31 - __builtin_clz(bits);
        }
    }
    return -1;
}

static int service_class(const struct lapic *lapic)
{
    int vector = highest(lapic->isr);
    return vector < 0 ? 0 : vector & 0xf0;
}

/* PPR */
static int processor_priority(const struct lapic *lapic)
{
    int service = service_class(lapic);
    return lapic->priority > service ? lapic->priority : service;
}

void lapic_set_cr8(struct lapic *lapic, uint64_t cr8)
{
    if (lapic->priority >> 4 != cr8) {
        lapic->priority = (uint8_t)(cr8 << 4); /* MOV to CR8 zeroes TPR[3:0] */
    }
}

int lapic_pending(const struct lapic *lapic)
{
    int vector = highest(lapic->irr);
    return vector >= 0 && (vector & 0xf0) > (processor_priority(lapic) & 0xf0) ? vector : -1;
}

bool lapic_masked(const struct lapic *lapic)
{
    int vector = highest(lapic->irr);
    return lapic_pending(lapic) < 0 && vector >= 0 && (vector & 0xf0) > service_class(lapic);
}

void lapic_take(struct lapic *lapic, int vector)
{
    uint32_t bit = 1u << (vector & 31);
    __atomic_fetch_and(&lapic->irr[vector >> 5], ~bit, __ATOMIC_ACQ_REL);
    lapic->isr[vector >> 5] |= bit;
}

static void end_of_interrupt(struct lapic *lapic)
{
    int vector = highest(lapic->isr);
    if (vector >= 0) {
        lapic->isr[vector >> 5] &= ~(1u << (vector & 31));
    }
}

/* --- Messages (10.6, 10.12.9) ----------------------------------------------------------------- */

void lapic_post(struct vcpu *vcpu, uint8_t vector)
{
    struct lapic *lapic = &vcpu->lapic;
    if (is_enabled(lapic)) {
        __atomic_fetch_or(&lapic->irr[vector >> 5], 1u << (vector & 31), __ATOMIC_RELEASE);
        vcpu_attend(vcpu);
    }
}

bool lapic_wakes(const struct lapic *lapic)
{
    uint32_t request = __atomic_load_n(&lapic->request, __ATOMIC_ACQUIRE);
    return request & LAPIC_REQUEST_SIPI || (request != 0 && lapic->activity != LAPIC_WAIT_SIPI);
}

/* INIT undoes what was asked for before; of two start-ups the first counts. */
static void request(struct vcpu *vcpu, uint32_t wanted)
{
    uint32_t *word = &vcpu->lapic.request, new;
    uint32_t old = __atomic_load_n(word, __ATOMIC_RELAXED);
    do {
        if (wanted & LAPIC_REQUEST_SIPI && old & LAPIC_REQUEST_SIPI) {
            return;
        }
        new = wanted == LAPIC_REQUEST_INIT ? wanted : old | wanted;
    } while (
        !__atomic_compare_exchange_n(word, &old, new, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    vcpu_attend(vcpu);
}

static void note_error(struct vcpu *vcpu, uint32_t error)
{
    struct lapic *lapic = &vcpu->lapic;
    uint32_t lvt = lapic->lvt[MSR_LVT_ERROR - MSR_LVT];
    lapic->errors_since |= error;
    if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16) {
        lapic_post(vcpu, (uint8_t)lvt);
    }
}

static bool is_addressed(const struct vcpu *from, const struct vcpu *to, uint64_t command)
{
    uint32_t destination = (uint32_t)(command >> 32), logical = logical_id(&to->lapic);
    switch (command >> 18 & 3) {
    case TO_SELF:
        return from == to;
    case TO_ALL:
        return true;
    case TO_OTHERS:
        return from != to;
    default:
        break;
    }
    if (destination == BROADCAST) {
        return true;
    }
    if (command & COMMAND_LOGICAL) {
        return destination >> 16 == logical >> 16 && (destination & logical & 0xffff) != 0;
    }
    return destination == to->lapic.id;
}

static void deliver(struct vcpu *from, struct vcpu *to, uint64_t command)
{
    uint8_t vector = (uint8_t)command;
    switch (command >> 8 & 7) {
    case MODE_FIXED:
    case MODE_LOWEST:
        lapic_post(to, vector);
        break;
    case MODE_NMI:
        request(to, LAPIC_REQUEST_NMI);
        break;
    case MODE_INIT:
        if (command & COMMAND_ASSERT || !(command & COMMAND_LEVEL)) { /* else: de-assert */
            request(to, LAPIC_REQUEST_INIT);
        }
        break;
    case MODE_SIPI:
        to->lapic.sipi_tsc_offset = clock_offset(to, hvm->get(&from->hvm, HVM_FIELD_TSC_OFFSET));
        request(to, LAPIC_REQUEST_SIPI | vector);
        break;
    default:
        break; /* there is no system management mode */
    }
}

/* Lowest priority: to the first of those addressed. */
static bool send(struct vcpu *vcpu, uint64_t command)
{
    struct domain *domain = vcpu->domain;
    unsigned mode = command >> 8 & 7;
    if (command & COMMAND_RESERVED || mode == 3 || mode == 7) {
        return false;
    }
    vcpu->lapic.command = command;
    if (mode <= MODE_LOWEST && (command & 0xff) < 16) {
        note_error(vcpu, ERROR_SEND_VECTOR);
        return true;
    }
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        if (is_addressed(vcpu, domain->vcpu[i], command)) {
            deliver(vcpu, domain->vcpu[i], command);
            if (mode == MODE_LOWEST) {
                break;
            }
        }
    }
    return true;
}

/* --- MSRs ------------------------------------------------------------------------------------- */

uint64_t lapic_base(const struct lapic *lapic) { return BASE_X2APIC | (lapic->bsp ? BASE_BSP : 0); }

static bool read_vector_word(const struct lapic *lapic, uint32_t msr, uint64_t *value)
{
    unsigned i = msr & 7;
    switch (msr & ~7u) {
    case MSR_ISR:
        *value = lapic->isr[i];
        return true;
    case MSR_TMR:
        *value = 0; /* nothing is level-triggered */
        return true;
    case MSR_IRR:
        *value = __atomic_load_n(&lapic->irr[i], __ATOMIC_RELAXED);
        return true;
    default:
        return false;
    }
}

bool lapic_rdmsr(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    struct lapic *lapic = &vcpu->lapic;
    lapic_set_cr8(lapic, vcpu->hvm.cr8);
    if (msr >= MSR_LVT && msr <= MSR_LVT_ERROR) {
        *value = lapic->lvt[msr - MSR_LVT];
        return true;
    }
    switch (msr) {
    case MSR_APIC_BASE:
        *value = lapic_base(lapic);
        return true;
    case MSR_ID:
        *value = lapic->id;
        return true;
    case MSR_VERSION:
        *value = VERSION;
        return true;
    case MSR_PRIORITY:
        *value = lapic->priority;
        return true;
    case MSR_PROCESSOR_PRIORITY:
        *value = (uint64_t)processor_priority(lapic);
        return true;
    case MSR_LOGICAL:
        *value = logical_id(lapic);
        return true;
    case MSR_SPURIOUS:
        *value = lapic->spurious;
        return true;
    case MSR_ERROR:
        *value = lapic->error;
        return true;
    case MSR_COMMAND:
        *value = lapic->command;
        return true;
    case MSR_TIMER_INITIAL:
        *value = lapic->timer_initial;
        return true;
    case MSR_TIMER_CURRENT:
        *value = 0;
        return true;
    case MSR_TIMER_DIVIDE:
        *value = lapic->timer_divide;
        return true;
    default:
        return read_vector_word(lapic, msr, value);
    }
}

static void write_spurious(struct lapic *lapic, uint32_t value)
{
    __atomic_store_n(&lapic->spurious, value, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < LAPIC_LVTS && !(value & SPURIOUS_ENABLE); i++) {
        lapic->lvt[i] |= LVT_MASKED; /* 10.4.7.2 */
    }
}

static bool write_lvt(struct lapic *lapic, unsigned i, uint64_t value)
{
    if (value & ~(uint64_t)lvt_bits[i]) {
        return false;
    }
    lapic->lvt[i] = ((uint32_t)value & ~LVT_READ_ONLY) | (is_enabled(lapic) ? 0 : LVT_MASKED);
    return true;
}

static bool write_priority(struct vcpu *vcpu, uint64_t value)
{
    if (value > 0xff) {
        return false;
    }
    vcpu->lapic.priority = (uint8_t)value;
    vcpu->hvm.cr8 = value >> 4;
    return true;
}

/* Those whose reserved bits are all that is to be checked. */
static bool write_stored(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    struct lapic *lapic = &vcpu->lapic;
    switch (msr) {
    case MSR_EOI:
        if (value != 0) {
            return false;
        }
        end_of_interrupt(lapic);
        return true;
    case MSR_SPURIOUS:
        if (value & ~(uint64_t)SPURIOUS_BITS) {
            return false;
        }
        write_spurious(lapic, (uint32_t)value);
        return true;
    case MSR_ERROR: /* 10.5.3 */
        if (value != 0) {
            return false;
        }
        lapic->error = lapic->errors_since;
        lapic->errors_since = 0;
        return true;
    case MSR_TIMER_INITIAL:
        if (value > UINT32_MAX) {
            return false;
        }
        lapic->timer_initial = (uint32_t)value;
        return true;
    case MSR_TIMER_DIVIDE:
        if (value & ~(uint64_t)TIMER_DIVIDE_BITS) {
            return false;
        }
        lapic->timer_divide = (uint32_t)value;
        return true;
    default:
        return false;
    }
}

bool lapic_wrmsr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    struct lapic *lapic = &vcpu->lapic;
    lapic_set_cr8(lapic, vcpu->hvm.cr8);
    __atomic_store_n(&vcpu->attention, 1, __ATOMIC_RELAXED); /* priorities may be others now */
    if (msr >= MSR_LVT && msr <= MSR_LVT_ERROR) {
        return write_lvt(lapic, msr - MSR_LVT, value);
    }
    switch (msr) {
    case MSR_APIC_BASE: /* as with IA32_XAPIC_DISABLE_STATUS[0]: x2APIC mode is never left */
        return value == lapic_base(lapic);
    case MSR_PRIORITY:
        return write_priority(vcpu, value);
    case MSR_COMMAND:
        return send(vcpu, value);
    case MSR_SELF:
        return value <= 0xff && send(vcpu, UINT64_C(1) << 18 | value);
    default:
        return write_stored(vcpu, msr, value);
    }
}

/* --- As a page -------------------------------------------------------------------------------- */

/* Registers are 16 bytes apart; the upper half of the command has a place of its own. */
#define WORD(msr) (((msr)&0xffu) * 4)
#define WORD_COMMAND_HIGH (WORD(MSR_COMMAND) + 4)
#define EXCEPTIONS 0xffffu /* vectors that are no interrupt's, in the first word */

uint32_t lapic_timer_divisor(const struct lapic *lapic)
{
    unsigned power = (lapic->timer_divide & 3) | (lapic->timer_divide >> 1 & 4); /* 10.5.4 */
    return 1u << ((power + 1) & 7);
}

void lapic_to_page(const struct lapic *lapic, uint32_t page[LAPIC_PAGE_WORDS])
{
    __builtin_memset(page, 0, LAPIC_PAGE_WORDS * sizeof(page[0]));
    page[WORD(MSR_ID)] = lapic->id;
    page[WORD(MSR_VERSION)] = VERSION;
    page[WORD(MSR_PRIORITY)] = lapic->priority;
    page[WORD(MSR_PROCESSOR_PRIORITY)] = (uint32_t)processor_priority(lapic);
    page[WORD(MSR_LOGICAL)] = logical_id(lapic);
    page[WORD(MSR_SPURIOUS)] = lapic->spurious;
    for (unsigned i = 0; i < LAPIC_WORDS; i++) {
        page[WORD(MSR_ISR + i)] = lapic->isr[i];
        page[WORD(MSR_IRR + i)] = lapic->irr[i];
    }
    page[WORD(MSR_ERROR)] = lapic->error;
    page[WORD(MSR_COMMAND)] = (uint32_t)lapic->command;
    page[WORD_COMMAND_HIGH] = (uint32_t)(lapic->command >> 32);
    for (unsigned i = 0; i < LAPIC_LVTS; i++) {
        page[WORD(MSR_LVT + i)] = lapic->lvt[i];
    }
    page[WORD(MSR_TIMER_INITIAL)] = lapic->timer_initial;
    page[WORD(MSR_TIMER_DIVIDE)] = lapic->timer_divide;
}

bool lapic_from_page(struct lapic *lapic, const uint32_t page[LAPIC_PAGE_WORDS])
{
    struct lapic new = *lapic;
    uint32_t again[LAPIC_PAGE_WORDS];
    new.priority = (uint8_t)page[WORD(MSR_PRIORITY)];
    new.spurious = page[WORD(MSR_SPURIOUS)] & SPURIOUS_BITS;
    for (unsigned i = 0; i < LAPIC_WORDS; i++) {
        new.isr[i] = page[WORD(MSR_ISR + i)] & ~(i == 0 ? EXCEPTIONS : 0);
        new.irr[i] = page[WORD(MSR_IRR + i)] & ~(i == 0 ? EXCEPTIONS : 0);
    }
    new.error = page[WORD(MSR_ERROR)] & 0xff;
    new.command = (page[WORD(MSR_COMMAND)] & ~COMMAND_RESERVED) | (uint64_t)page[WORD_COMMAND_HIGH]
                                                                      << 32;
    for (unsigned i = 0; i < LAPIC_LVTS; i++) {
        new.lvt[i] = page[WORD(MSR_LVT + i)] & lvt_bits[i] & ~LVT_READ_ONLY;
    }
    new.timer_initial = page[WORD(MSR_TIMER_INITIAL)];
    new.timer_divide = page[WORD(MSR_TIMER_DIVIDE)] & TIMER_DIVIDE_BITS;
    lapic_to_page(&new, again);
    if (__builtin_memcmp(again, page, sizeof(again)) != 0) {
        return false;
    }
    *lapic = new;
    return true;
}
