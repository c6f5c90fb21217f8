/* SPDX-License-Identifier: BSD-2-Clause */
/* A copy of a vcpu goes on as the vcpu does: asleep in HLT, and single-stepped. Debug exceptions
 * come once, and a fault in the delivery of a double fault ends a domain. */
#include "guest.h"

const char guest_name[] = "states";

#define HOLE UINT64_C(0x8000000) /* no memory there */
#define STEPPED_COPIES 12u

extern uint64_t guest_idt[32][2];
static volatile uint32_t halting, woken;
static volatile uint64_t stepped; /* where the single step was told */

static void set_gate(unsigned vector, const void *handler)
{
    uint64_t at = (uint64_t)handler;
    guest_idt[vector][0] =
        (at & 0xffff) | 8 << 16 | UINT64_C(0x8e00) << 32 | (at >> 16 & 0xffff) << 48;
    guest_idt[vector][1] = at >> 32;
}

/* --- HLT with interrupts on: there are none, so it sleeps for ever ---------------------------- */

static void halts(uint64_t argument)
{
    halting = 1;
    __asm__ volatile("sti; hlt" : : : "memory");
    woken = (uint32_t)argument;
}

static void check_asleep(void)
{
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(woken, 0);
        yield();
    }
}

static void sleepers(void)
{
    struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "asleep"};
    struct cleave_fork fork = {.count = 1, .limit = UINT64_MAX};
    uint32_t id, restored;
    start_vcpu(1, halts, 1);
    while (!halting) {
        yield();
    }
    check_asleep();
    if (fork_self(1, CLEAVE_FORK_BASE, &id) == 1) {
        check_asleep();
        leave(5);
    }
    wait_for(id, 5);
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_OK);
    if (snapshot.snapshot == 0) { /* its result was written to the parent only */
        check_asleep();
        leave(6);
    }
    fork.domain = snapshot.snapshot;
    fork.domains = (uint64_t)&restored;
    CHECK_EQ(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_OK);
    wait_for(restored, 6);
    destroy(id);
    destroy(restored);
    destroy(snapshot.snapshot);
    check_asleep();
}

/* One that a reset takes back sleeps again, and one that was started since is off. */
static void sleepers_again(void)
{
    uint32_t id;
    if (fork_self(1, CLEAVE_FORK_BASE, &id) == 1) {
        start_vcpu(2, halts, 2);
        for (;;) {
            CHECK_EQ(woken, 0);
            yield();
        }
    }
    for (unsigned n = 0; n < 3; n++) {
        for (unsigned i = 0; i < 10; i++) {
            CHECK_EQ(stat_of(id)->state, CLEAVE_STATE_RUNNING);
            yield();
        }
        on_domain(CLEAVE_OP_RESET, id);
    }
    destroy(id);
}

/* --- A call that is a single step ------------------------------------------------------------- */

extern char step_handler[], step_amd[], step_intel[];
__asm__(".text\n"
        "step_handler:\n"
        "    pushq %rax\n"
        "    movq 8(%rsp), %rax\n"
        "    movq %rax, stepped\n"
        "    andq $~0x100, 24(%rsp)\n" /* TF of the RFLAGS that IRET takes */
        "    popq %rax\n"
        "    iretq\n"
        "    .globl step_amd, step_intel, step_handler\n");

/* FORK with TF set: told behind the call, in the parent and in the child. RDX. */
static uint64_t step_fork(struct cleave_fork *fork)
{
    uint64_t status = CLEAVE_HYPERCALL, index = sizeof(*fork);
    if (guest_amd) {
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; vmmcall; step_amd: nop; nop"
                         : "+a"(status), "+d"(index)
                         : "D"(CLEAVE_OP_FORK), "S"(fork)
                         : "memory");
    } else {
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; vmcall; step_intel: nop; nop"
                         : "+a"(status), "+d"(index)
                         : "D"(CLEAVE_OP_FORK), "S"(fork)
                         : "memory");
    }
    CHECK_EQ(status, CLEAVE_OK);
    return index;
}

static void single_step(void)
{
    uint32_t id;
    struct cleave_fork fork = {
        .domain = CLEAVE_DOMAIN_SELF, .count = 1, .limit = UINT64_MAX, .domains = (uint64_t)&id};
    set_gate(1, step_handler);
    uint64_t index = step_fork(&fork);
    CHECK_EQ(stepped, guest_amd ? step_amd : step_intel);
    if (index != 0) {
        leave(7);
    }
    wait_for(id, 7);
    destroy(id);
}

/* --- Debug exceptions are told once ----------------------------------------------------------- */

#define DR6_RESET UINT64_C(0xffff0ff0)
#define DR6_CAUSES UINT64_C(0x600f) /* BS, BD, B3 to B0 */
static volatile uint64_t traps, trap_at, trap_dr6;

extern char count_handler[], unknown_handler[], int1_end[];
__asm__(".text\n"
        "count_handler:\n"
        "    pushq %rax\n"
        "    movq 8(%rsp), %rax\n"
        "    movq %rax, trap_at\n"
        "    movq %db6, %rax\n"
        "    movq %rax, trap_dr6\n"
        "    incq traps\n"
        "    cmpq $1, traps\n"
        "    jbe 1f\n"
        "    incq 8(%rsp)\n" /* comes for ever otherwise */
        "1:  popq %rax\n"
        "    iretq\n"
        "unknown_handler:\n" /* over the instruction */
        "    incq (%rsp)\n"
        "    iretq\n"
        "    .globl count_handler, unknown_handler, int1_end\n");

/* INT1 is a trap, whose cause DR6 does not tell. QEMU's CPU does not know it (#UD). */
static void int1(void)
{
    set_gate(1, count_handler);
    uint64_t low = guest_idt[6][0], high = guest_idt[6][1];
    set_gate(6, unknown_handler);
    __asm__ volatile("mov %0, %%db6\n"
                     ".byte 0xf1\n"
                     "int1_end: nop"
                     :
                     : "r"(DR6_RESET)
                     : "memory");
    guest_idt[6][0] = low;
    guest_idt[6][1] = high;
    if (guest_amd && traps == 0) {
        say("INT1: not decidable here (the CPU has none)");
        return;
    }
    CHECK_EQ(traps, 1);
    CHECK_EQ(trap_at, int1_end);
    CHECK_EQ(trap_dr6 & DR6_CAUSES, 0);
}

/* --- A vcpu that is single-stepped while another one forks ------------------------------------ */

static volatile uint64_t told, lost;
__attribute__((used)) static volatile uint64_t asked; /* counted in assembly */
static const char *volatile behind;                   /* the call */

/* Counts the steps behind the call. There must be as many as there were calls. */
extern char watch_handler[], yield_amd[], yield_intel[];
__asm__(".text\n"
        "watch_handler:\n"
        "    pushq %rax\n"
        "    movq 8(%rsp), %rax\n"
        "    cmpq %rax, behind\n"
        "    jne 1f\n"
        "    incq told\n"
        "    movq told, %rax\n"
        "    cmpq %rax, asked\n"
        "    je 1f\n"
        "    incq lost\n"
        "1:  popq %rax\n"
        "    iretq\n"
        "    .globl watch_handler, yield_amd, yield_intel\n");

/* Calls that give up the CPU, so that it is often stopped behind one. */
static void yields(uint64_t argument)
{
    (void)argument;
    if (guest_amd) {
        behind = yield_amd;
        __asm__ volatile("pushfq; orq $0x300, (%%rsp); popfq\n"
                         "1: incq asked; movl %0, %%eax; vmmcall; yield_amd: jmp 1b"
                         :
                         : "i"(CLEAVE_HYPERCALL), "D"(CLEAVE_OP_YIELD), "S"(0), "d"(0)
                         : "rax", "memory");
    } else {
        behind = yield_intel;
        __asm__ volatile("pushfq; orq $0x300, (%%rsp); popfq\n"
                         "1: incq asked; movl %0, %%eax; vmcall; yield_intel: jmp 1b"
                         :
                         : "i"(CLEAVE_HYPERCALL), "D"(CLEAVE_OP_YIELD), "S"(0), "d"(0)
                         : "rax", "memory");
    }
}

/* Holds a CPU, so that in a child others have run before the vcpu that steps does: on Bochs an EPT
 * violation at its first instruction would bring a lost step back. */
static void spins(uint64_t argument)
{
    (void)argument;
    __asm__ volatile("sti; 1: pause; jmp 1b");
}

static void check_steps(void)
{
    uint64_t before = told;
    for (unsigned i = 0; i < 5000 && told < before + 5; i++) {
        yield();
    }
    CHECK(told >= before + 5);
    CHECK_EQ(lost, 0);
}

static void stepped_copies(void)
{
    uint32_t id;
    set_gate(1, watch_handler);
    start_vcpu(2, spins, 0);
    start_vcpu(3, yields, 0);
    for (unsigned n = 0; n < STEPPED_COPIES; n++) {
        check_steps();
        for (unsigned i = 0; i < 167 * n; i++) {
            relax(); /* else it is always stopped at the same place */
        }
        if (fork_self(1, 0, &id) == 1) {
            for (uint64_t end = cycles() + 1000000; cycles() < end;) {
                relax();
            }
            check_steps();
            leave(9);
        }
        wait_for(id, 9);
        destroy(id);
    }
}

/* --- Faults in faults ------------------------------------------------------------------------- */

/* No exception can be delivered where the table of gates is not readable: #GP, #DF, and the end. */
static void third_fault(void)
{
    uint32_t id;
    if (fork_self(1, 0, &id) == 1) {
        const struct {
            uint16_t limit;
            uint64_t base;
        } __attribute__((packed)) table = {32 * 16 - 1, HOLE};
        __asm__ volatile("lidt %0; ud2" : : "m"(table));
        leave(8);
    }
    struct cleave_wait wait = {.domain = id, .flags = CLEAVE_WAIT_NOT};
    uint64_t status;
    while ((status = CLEAVE(CLEAVE_OP_WAIT, &wait)) == CLEAVE_BUSY) {
        yield();
    }
    CHECK_EQ(status, CLEAVE_OK);
    CHECK_EQ(wait.reason, CLEAVE_TRIPLE_FAULT);
    destroy(id);
}

void guest_story(void)
{
    third_fault();
    single_step();
    int1();
    sleepers();
    sleepers_again();
    stepped_copies();
    audit_clean();
}
