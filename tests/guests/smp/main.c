/* SPDX-License-Identifier: BSD-2-Clause */
/* Vcpus start each other with INIT and SIPI, interrupt each other through their local APICs, and
 * are forked while they sleep, run and wait to be started. */
#include "guest.h"

const char guest_name[] = "smp";

#define VCPUS 3u
#define TRAMPOLINE UINT64_C(0x8000)
#define TSC_AHEAD (UINT64_C(1) << 44)
#define SHARED_AT (32 * MIB)
#define RESETS 5u
#define PAIRS (guest_amd ? 3000u : 300u)

enum {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_MTRR_CAPABILITY = 0xfe,
    MSR_MTRR_BASE = 0x200,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_ID = 0x802,
    MSR_EOI = 0x80b,
    MSR_LOGICAL = 0x80d,
    MSR_SPURIOUS = 0x80f,
    MSR_ISR = 0x810,
    MSR_IRR = 0x820,
    MSR_COMMAND = 0x830,
    MSR_SELF = 0x83f
};
enum { NMI = 2, GP = 13, LOW = 0x40, HIGH = 0x51, CALL = 0x60, ANSWER = 0x70 };
#define TO(i) ((uint64_t)(2 * (i)) << 32) /* APIC ids are two apart */
#define OTHERS (UINT64_C(3) << 18)
#define ALL (UINT64_C(2) << 18)
#define LOGICAL UINT64_C(0x800)
#define COMMAND_NMI UINT64_C(0x400)
#define COMMAND_INIT UINT64_C(0xc500)
#define COMMAND_INIT_END UINT64_C(0x8500) /* de-assert: nothing */
#define COMMAND_SIPI (UINT64_C(0x600) | TRAMPOLINE >> 12)

/* Where a start-up begins: 16-bit code at TRAMPOLINE, which goes to 32-bit code as other starts. */
__asm__(".section .rodata\n"
        ".code16\n"
        ".globl trampoline, trampoline_record, trampoline_end\n"
        "trampoline:\n"
        "    movw %cs, %ax\n"
        "    movw %ax, %ds\n"
        "    lgdtl 3f - trampoline\n"
        "    movl trampoline_record - trampoline, %ebx\n"
        "    movl %cr0, %eax\n"
        "    andl $0x9fffffff, %eax\n" /* CD, NW */
        "    orl $1, %eax\n"
        "    movl %eax, %cr0\n"
        "    ljmpl $8, $0x8000 + 1f - trampoline\n"
        ".code32\n"
        "1:  movl $16, %eax\n"
        "    movl %eax, %ds\n"
        "    movl %eax, %es\n"
        "    movl %eax, %ss\n"
        "    movl $guest_vcpu_entry, %eax\n"
        "    jmp *%eax\n"
        ".align 8\n"
        "2:  .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
        "3:  .word 23\n"
        "    .long 0x8000 + 2b - trampoline\n"
        "trampoline_record: .long 0\n"
        "trampoline_end:\n"
        ".code64\n"
        ".text\n");
extern const char trampoline[], trampoline_record[], trampoline_end[];

static void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static void interrupts_on(void) { __asm__ volatile("sti; nop" : : : "memory"); }
static void interrupts_off(void) { __asm__ volatile("cli" : : : "memory"); }
/* The shadow of STI holds interrupts back until HLT sleeps. */
static void sleep_once(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }

/* --- What the vcpus tell each other ----------------------------------------------------------- */

static volatile uint64_t started[VCPUS], ids[VCPUS], times[VCPUS], called[VCPUS], nmis[VCPUS];
static volatile uint64_t deep[VCPUS], answers, spins;
static volatile uint64_t depth, worst, turns, again; /* of NMIs: how many at once, on vcpu 2 */
static volatile uint64_t order[4], taken;
static volatile uint64_t spin[VCPUS], stop[VCPUS]; /* what the next start, or call, is to do */
static volatile uint64_t awaited[VCPUS];           /* a domain to wait for, that does not end */

static volatile uint64_t faults;

static unsigned self(void) { return (unsigned)rdmsr(MSR_ID) / 2; }

/* --- Interrupts ------------------------------------------------------------------------------- */

struct gate {
    uint16_t low, selector, flags, middle;
    uint32_t high, reserved;
};
extern struct gate guest_idt[32];
static struct gate idt[256];
struct frame {
    uint64_t ip, cs, flags, sp, ss;
};

extern const char on_low_entry[], on_high_entry[];
static volatile uint64_t twice;

/* An interrupt that came at the first instruction of a handler, with interrupts off. */
static void check_once(const struct frame *frame)
{
    twice += frame->ip == (uint64_t)on_low_entry || frame->ip == (uint64_t)on_high_entry;
}

__attribute__((used)) static void on_low(struct frame *frame)
{
    check_once(frame);
    order[taken++ & 3] = LOW;
    wrmsr(MSR_EOI, 0);
}

/* The lower one comes only after the EOI, even with interrupts on. */
__attribute__((used)) static void on_high(struct frame *frame)
{
    check_once(frame);
    CHECK_EQ(rdmsr(MSR_ISR + 2), 1u << (HIGH - 64));
    interrupts_on();
    interrupts_off();
    order[taken++ & 3] = HIGH;
    wrmsr(MSR_EOI, 0);
}

__attribute__((used)) static void on_call(struct frame *frame)
{
    (void)frame;
    called[self()]++;
    wrmsr(MSR_EOI, 0);
    if (self() != 0) {
        wrmsr(MSR_COMMAND, TO(0) | (ANSWER + self())); /* of one vector, two could become one */
    }
}

__attribute__((used)) static void on_answer(struct frame *frame)
{
    (void)frame;
    __atomic_fetch_add(&answers, 1, __ATOMIC_RELAXED);
    wrmsr(MSR_EOI, 0);
}

/* The first stays until it is told `again`, with an exit at each turn. No other may begin before
 * its IRET is through. */
__attribute__((used)) static void on_nmi(struct frame *frame)
{
    (void)frame;
    if (++depth > worst) {
        worst = depth;
    }
    for (nmis[self()]++; nmis[self()] == 1 && !again; turns++) {
        yield();
    }
    depth--;
}

/* Past RDMSR or WRMSR. */
__attribute__((used)) static void on_gp(struct frame *frame)
{
    frame->ip += 2;
    faults++;
}

/* What the gates lead to: `pop` drops an error code. */
#define ENTRY(name, pop)                                                                           \
    extern const char name##_entry[];                                                              \
    __asm__(#name "_entry:\n" pop "push %rax; push %rcx; push %rdx; push %rsi; push %rdi\n"        \
                  "push %r8; push %r9; push %r10; push %r11\n"                                     \
                  "lea 72(%rsp), %rdi\n"                                                           \
                  "cld; call " #name "\n"                                                          \
                  "pop %r11; pop %r10; pop %r9; pop %r8\n"                                         \
                  "pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax\n"                             \
                  "iretq\n")
ENTRY(on_low, "");
ENTRY(on_high, "");
ENTRY(on_call, "");
ENTRY(on_answer, "");
ENTRY(on_nmi, "");
ENTRY(on_gp, "add $8, %rsp\n");

static void set_gate(unsigned vector, const char *handler)
{
    uint64_t at = (uint64_t)handler;
    idt[vector] = (struct gate){.low = (uint16_t)at,
                                .selector = 8,
                                .flags = 0x8e00,
                                .middle = (uint16_t)(at >> 16),
                                .high = (uint32_t)(at >> 32)};
}

static void load_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

/* NMIs of vcpu 2 have a stack of their own, always from its top: one that comes while the frame of
 * the last one is still there overwrites it. */
static void load_tss(void)
{
    static uint64_t gdt[5];
    static uint32_t tss[26];
    static char stack[8192] __attribute__((aligned(16)));
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(gdt) - 1, (uint64_t)gdt};
    uint64_t base = (uint64_t)tss;
    gdt[1] = UINT64_C(0x00af9b000000ffff);
    gdt[2] = UINT64_C(0x00cf93000000ffff);
    gdt[3] = UINT64_C(0x0000890000000067) | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    gdt[4] = base >> 32;
    tss[9] = (uint32_t)(uint64_t)(stack + sizeof(stack)); /* IST 1 */
    __asm__ volatile("lgdt %0; ltr %w1" : : "m"(pointer), "r"(3 * 8) : "memory");
}

static void prepare(void)
{
    __builtin_memcpy(idt, guest_idt, sizeof(guest_idt));
    set_gate(NMI, on_nmi_entry);
    idt[NMI].flags |= 1; /* the stack of load_tss() */
    set_gate(GP, on_gp_entry);
    set_gate(LOW, on_low_entry);
    set_gate(HIGH, on_high_entry);
    set_gate(CALL, on_call_entry);
    set_gate(ANSWER + 1, on_answer_entry);
    set_gate(ANSWER + 2, on_answer_entry);
    load_idt();
    wrmsr(MSR_SPURIOUS, 0x1ff);
}

/* --- What a vcpu is told ---------------------------------------------------------------------- */

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

/* One package of as many cores as there are vcpus, by each way that CPUID tells it. */
static void topology(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    CHECK_EQ(r[1] >> 24, 2 * self());
    CHECK_EQ(r[1] >> 16 & 0xff, 8);
    CHECK_EQ(r[2] >> 21 & 1, 1); /* x2APIC */
    CHECK_EQ(r[3] >> 28 & 1, 1);
    CHECK_EQ(r[3] >> 12 & 1, 1);
    cpuid(0xb, 0, r);
    CHECK_EQ(r[0], 1);
    CHECK_EQ(r[1], 1);
    CHECK_EQ(r[3], 2 * self());
    cpuid(0xb, 1, r);
    CHECK_EQ(r[0], 3);
    CHECK_EQ(r[1], VCPUS);
    CHECK_EQ(r[2] >> 8, 2);
    cpuid(0x80000008, 0, r);
    CHECK_EQ(r[2], guest_amd ? 3u << 12 | (VCPUS - 1) : 0);
}

/* --- Other vcpus ------------------------------------------------------------------------------ */

static void other(uint64_t number)
{
    load_idt();
    if (number == 2) {
        load_tss();
    }
    wrmsr(MSR_SPURIOUS, 0x1ff);
    ids[number] = rdmsr(MSR_ID);
    times[number] = cycles();
    topology();
    started[number]++;
    if (awaited[number] != 0) {
        struct cleave_wait wait = {.domain = (uint32_t)awaited[number]};
        CLEAVE(CLEAVE_OP_WAIT, &wait);
        CHECK(false);
    }
    while (spin[number]) {
        spins++; /* with interrupts off */
    }
    while (!stop[number]) {
        sleep_once();
    }
    for (;;) {
        deep[number]++;
        __asm__ volatile("hlt"); /* with interrupts off: NMI and INIT alone end it */
    }
}

static void start(unsigned i)
{
    static struct guest_vcpu record[VCPUS];
    static char stack[VCPUS][16384] __attribute__((aligned(16)));
    uint64_t before = started[i];

    record[i] = (struct guest_vcpu){(uint64_t)stack[i + 1], (uint64_t)other, i};
    __builtin_memcpy((void *)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
    *(volatile uint32_t *)(TRAMPOLINE + (uint64_t)(trampoline_record - trampoline)) =
        (uint32_t)(uint64_t)&record[i];
    wrmsr(MSR_COMMAND, TO(i) | COMMAND_INIT);
    wrmsr(MSR_COMMAND, TO(i) | COMMAND_INIT_END);
    wrmsr(MSR_COMMAND, TO(i) | COMMAND_SIPI);
    wrmsr(MSR_COMMAND, TO(i) | COMMAND_SIPI); /* as on a PC: of no effect when it runs */
    while (started[i] == before) {
        relax();
    }
    CHECK_EQ(started[i], before + 1);
    CHECK_EQ(ids[i], 2 * i);
}

/* Calls by `command` and sleeps until `count` have answered. */
static void call_and_wait(uint64_t command, uint64_t count)
{
    uint64_t before = answers;
    wrmsr(MSR_COMMAND, command | CALL);
    while (answers < before + count) {
        sleep_once();
    }
    CHECK_EQ(answers, before + count);
}

/* --- The story -------------------------------------------------------------------------------- */

static void msrs(void)
{
    CHECK_EQ(rdmsr(MSR_MTRR_CAPABILITY), 0x508);
    CHECK_EQ(rdmsr(MSR_MTRR_DEF_TYPE), 0x806);
    wrmsr(MSR_MTRR_BASE, 0x40000001);
    CHECK_EQ(rdmsr(MSR_MTRR_BASE), 0x40000001);
    CHECK_EQ(faults, 0);
    wrmsr(MSR_MTRR_BASE, 0x40000002); /* no such type */
    CHECK_EQ(faults, 1);
    wrmsr(MSR_APIC_BASE, 0xfee00900); /* x2APIC mode is not left */
    CHECK_EQ(faults, 2);
    (void)rdmsr(MSR_EOI);
    CHECK_EQ(faults, 3);
    CHECK_EQ(rdmsr(MSR_MTRR_BASE), 0x40000001);
}

static void alone(void)
{
    CHECK_EQ(rdmsr(MSR_APIC_BASE), 0xfee00d00);
    CHECK_EQ(self(), 0);
    wrmsr(MSR_SELF, LOW);
    wrmsr(MSR_SELF, HIGH);
    wrmsr(MSR_SELF, LOW); /* is pending already */
    CHECK_EQ(taken, 0);
    CHECK_EQ(rdmsr(MSR_IRR + 2), 1u << (LOW - 64) | 1u << (HIGH - 64));
    interrupts_on();
    interrupts_off();
    CHECK_EQ(taken, 2);
    CHECK_EQ(order[0], HIGH);
    CHECK_EQ(order[1], LOW);
    CHECK_EQ(rdmsr(MSR_IRR + 2), 0);

    /* Held back by CR8 until that is lowered, at the latest by the end of a slice. */
    __asm__ volatile("mov %0, %%cr8" : : "r"(UINT64_C(5)));
    wrmsr(MSR_SELF, HIGH);
    interrupts_on();
    CHECK_EQ(taken, 2);
    __asm__ volatile("mov %0, %%cr8" : : "r"(UINT64_C(4)));
    while (taken < 3) {
        relax();
    }
    interrupts_off();
    __asm__ volatile("mov %0, %%cr8" : : "r"(UINT64_C(0)));
}

/* Two at a time, many times: each comes once, whatever else interrupts the CPU meanwhile. */
static void pairs(void)
{
    uint64_t before = taken;
    for (uint64_t i = 0; i < PAIRS; i++) {
        wrmsr(MSR_SELF, LOW);
        wrmsr(MSR_SELF, HIGH);
        interrupts_on();
        while (taken < before + 2 * (i + 1)) {
            relax();
        }
        interrupts_off();
        CHECK_EQ(twice, 0);
        CHECK_EQ(taken, before + 2 * (i + 1));
    }
}

static void calls(void)
{
    uint64_t before[VCPUS];
    for (unsigned i = 0; i < VCPUS; i++) {
        before[i] = called[i];
    }
    call_and_wait(TO(1), 1);
    call_and_wait(TO(2), 1);
    call_and_wait(OTHERS, 2);
    call_and_wait(ALL, 2);
    call_and_wait(LOGICAL | (uint64_t)(1u << 2 | 1u << 4) << 32, 2);
    CHECK_EQ(called[0], before[0] + 1);
    CHECK_EQ(called[1], before[1] + 4);
    CHECK_EQ(called[2], before[2] + 4);
}

/* INIT stops it wherever it is, and a start-up starts it again. */
static void restart(void)
{
    uint64_t before;
    spin[1] = 1;
    start(1);
    for (before = spins; spins < before + 1000;) {
        relax();
    }
    wrmsr(MSR_COMMAND, TO(1) | COMMAND_INIT);
    do {
        before = spins;
        for (uint64_t end = cycles() + 1000000; cycles() < end;) {
            relax();
        }
    } while (spins != before);
    spin[1] = 0;
    start(1);
    call_and_wait(TO(1), 1);
}

/* INIT and start-up reach a vcpu that waits in a hypercall. */
static void start_waiter(void)
{
    uint32_t id;
    CHECK_EQ(fork_self(1, CLEAVE_FORK_PAUSED, &id), 0);
    awaited[1] = id;
    start(1);
    for (unsigned i = 0; i < 50; i++) {
        yield(); /* it is there, now at the latest */
    }
    awaited[1] = 0;
    start(1);
    call_and_wait(TO(1), 1);
    destroy(id);
}

/* Until vcpu 2 has been in its NMI for a while, or does not come on. */
static void take_turns(void)
{
    uint64_t before = turns;
    for (unsigned i = 0; i < 5000 && turns < before + 20; i++) {
        yield();
    }
}

/* The second NMI comes, once, when the first one is through. */
static void second_nmi(void)
{
    uint64_t slept = deep[2];
    take_turns();
    CHECK_EQ(worst, 1);
    CHECK_EQ(nmis[2], 1);
    again = 1;
    for (unsigned i = 0; i < 5000 && (nmis[2] < 2 || deep[2] == slept); i++) {
        yield();
    }
    CHECK_EQ(worst, 1);
    CHECK_EQ(nmis[2], 2);
    CHECK(deep[2] > slept); /* behind both it goes on where it was */
}

/* HLT with interrupts off is ended by NMI and INIT alone. A second NMI waits for the end of the
 * first, in a child that is made meanwhile as well. */
static void deep_sleep(void)
{
    uint32_t id;
    stop[2] = 1;
    call_and_wait(TO(2), 1);
    while (deep[2] == 0) {
        relax();
    }
    uint64_t answered = answers;
    wrmsr(MSR_COMMAND, TO(2) | CALL);
    wrmsr(MSR_COMMAND, TO(2) | COMMAND_NMI);
    take_turns();
    CHECK_EQ(nmis[2], 1);
    wrmsr(MSR_COMMAND, TO(2) | COMMAND_NMI);
    if (fork_self(1, 0, &id) == 1) {
        second_nmi();
        leave(9);
    }
    second_nmi();
    CHECK_EQ(wait_for(id, 9), id);
    destroy(id);
    interrupts_on();
    CHECK_EQ(answers, answered);
    interrupts_off();
    stop[2] = 0;
    start(2);
    call_and_wait(TO(2), 1);
}

/* What runs between two resets: APICs and vcpus are each time as at the fork. */
static void round(void)
{
    uint64_t before = taken;
    CHECK_EQ(rdmsr(MSR_IRR + 2), 1u << (LOW - 64));
    CHECK_EQ(rdmsr(MSR_MTRR_BASE), 0x40000001);
    wrmsr(MSR_MTRR_BASE, 0);
    interrupts_on();
    interrupts_off();
    CHECK_EQ(taken, before + 1);
    call_and_wait(TO(1), 1);
    start(2);
    calls();
    wrmsr(MSR_COMMAND, TO(1) | COMMAND_INIT);
    *word(SHARED_AT) += 1;
    for (;;) {
        yield();
    }
}

static void resets(void)
{
    uint32_t id;
    wrmsr(MSR_COMMAND, TO(2) | COMMAND_INIT);
    wrmsr(MSR_SELF, LOW);
    if (fork_self(1, CLEAVE_FORK_BASE, &id) == 1) {
        round();
    }
    for (uint64_t n = 1; n <= RESETS; n++) {
        while (*word(SHARED_AT) < n) {
            CHECK_EQ(stat_of(id)->state, CLEAVE_STATE_RUNNING);
            yield();
        }
        CHECK_EQ(*word(SHARED_AT), n);
        on_domain(CLEAVE_OP_RESET, id);
    }
    destroy(id);
    interrupts_on();
    interrupts_off();
    start(2);
}

void guest_story(void)
{
    uint32_t id;
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    prepare();
    topology();
    msrs();
    alone();
    pairs();
    wrmsr(MSR_TSC, cycles() + TSC_AHEAD);
    start(1);
    start(2);
    CHECK(times[1] >= TSC_AHEAD && times[2] >= times[1]);
    calls();
    restart();
    start_waiter();
    deep_sleep();
    calls();

    /* The child's vcpus sleep as the parent's do, and are called; one waits for its start. */
    wrmsr(MSR_COMMAND, TO(2) | COMMAND_INIT);
    if (fork_self(1, 0, &id) == 1) {
        call_and_wait(TO(1), 1);
        start(2);
        calls();
        restart();
        leave(7);
    }
    start(2);
    calls();
    CHECK_EQ(wait_for(id, 7), id);
    destroy(id);
    resets();
    calls();
    audit_clean();
}
