/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What operations cost, on a machine of one CPU whose TSC counts instructions (tests/bench/
 * hypervisor.sh). Prints lines "figure NAME VALUE UNIT". An iteration of REP MOVSQ or STOSQ counts
 * as an instruction there: those with which the hypervisor copied and zeroed pages are taken off,
 * and printed as bytes. What is printed is the median of several rounds.
 */
#include "guest.h"

const char guest_name[] = "bench";

#define NO_CALL 4095u /* a number that no hypercall has */
#define ROUNDS 9u
#define IDLE 64u

/* One GiB of 2 MiB leaves, all filled, under tables of its own; and 64 GiB with a page in every
 * 64 MiB: 64 tables of 512 entries, and 1,024 below them. */
#define DENSE (512 * GIB)
#define DENSE_SIZE GIB
#define SPARSE_STEP (64 * MIB)
#define SPARSE (64 * GIB)
#define SPARSE_SIZE (64 * GIB)

struct cost {
    uint64_t ticks, copied, zeroed;
};

/* The operands of a hypercall that is made with nothing in memory. */
struct operands {
    uint64_t number, op, arguments, size;
};

static uint64_t pdpt_dense[512] __attribute__((aligned(4096)));
static struct cleave_stat before, after;
static struct cleave_fork fork_call;
static uint64_t clock_cost;
extern uint64_t guest_pml4[512];

/* --- Measuring -------------------------------------------------------------------------------- */

/* Only registers: the caller may not own its stack yet. */
static inline __attribute__((always_inline)) uint64_t
direct(uint64_t number, uint64_t op, const void *arguments, uint64_t size, uint64_t *results)
{
    uint64_t status = number;
    __asm__ volatile("vmmcall" : "+a"(status), "+d"(size) : "D"(op), "S"(arguments) : "memory");
    *results = size;
    return status;
}

static inline __attribute__((always_inline)) uint64_t now(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static void read_counters(struct cleave_stat *stat)
{
    stat->domain = CLEAVE_DOMAIN_SELF;
    CHECK_EQ(CLEAVE(CLEAVE_OP_STAT, stat), CLEAVE_OK);
}

/* From `began` to `ended`, with what was copied between `before` and `after`. */
static struct cost cost_of(uint64_t began, uint64_t ended)
{
    struct cost cost = {.ticks = ended - began - clock_cost,
                        .copied = after.hv_copied - before.hv_copied,
                        .zeroed = after.hv_zeroed - before.hv_zeroed};
    cost.ticks -= (cost.copied + cost.zeroed) / 8;
    return cost;
}

static struct cost median(struct cost *costs)
{
    for (unsigned i = 1; i < ROUNDS; i++) {
        struct cost cost = costs[i];
        unsigned at = i;
        for (; at > 0 && costs[at - 1].ticks > cost.ticks; at--) {
            costs[at] = costs[at - 1];
        }
        costs[at] = cost;
    }
    return costs[ROUNDS / 2];
}

static void figure(const char *name, uint64_t value, const char *unit)
{
    say("figure %s %lu %s", name, value, unit);
}

static void report(const char *name, struct cost *costs)
{
    struct cost cost = median(costs);
    say("figure %s %lu instructions", name, cost.ticks);
    say("figure %s.copied %lu bytes", name, cost.copied);
    say("figure %s.zeroed %lu bytes", name, cost.zeroed);
}

/* --- What children tell ----------------------------------------------------------------------- */

#define TOLD_MAX (64 / sizeof(struct cost))

_Noreturn static void tell(const struct cost *costs, unsigned count)
{
    struct cleave_exit exit = {
        .code = 0, .size = count * (uint32_t)sizeof(struct cost), .result = (uint64_t)costs};
    for (;;) {
        (void)CLEAVE(CLEAVE_OP_EXIT, &exit);
    }
}

/* Waits for the child's end; `costs` has room for what it tells. */
static void hear(struct cost *costs, unsigned count)
{
    const uint32_t size = count * (uint32_t)sizeof(struct cost);
    struct cleave_wait wait = {.domain = 0, .size = size, .result = (uint64_t)costs};
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_OK);
    CHECK_EQ(wait.reason, CLEAVE_EXITED);
    CHECK_EQ(wait.code, 0);
    CHECK_EQ(wait.size, size);
    destroy(wait.which);
}

/* --- Figures ---------------------------------------------------------------------------------- */

static void null_call(void)
{
    struct cost costs[ROUNDS];
    uint64_t results;
    for (unsigned i = 0; i < ROUNDS; i++) {
        read_counters(&before);
        uint64_t began = now();
        uint64_t status = direct(NO_CALL, 0, NULL, 0, &results);
        uint64_t ended = now();
        read_counters(&after);
        CHECK_EQ(status, (uint64_t)-38);
        costs[i] = cost_of(began, ended);
    }
    report("hv.null_hypercall", costs);
}

static void prepare_fork(void)
{
    fork_call = (struct cleave_fork){.domain = CLEAVE_DOMAIN_SELF, .count = 1, .limit = UINT64_MAX};
    after.domain = CLEAVE_DOMAIN_SELF;
    read_counters(&before);
}

static struct cost child_told(void)
{
    struct cost told;
    hear(&told, 1);
    return told;
}

/*
 * One fork, from the call until the child reads the TSC with its first instruction; the parent is
 * put back, the child runs next. With paging on: the CPU walks the guest's tables for that
 * instruction, which nested paging takes for writes on AMD, so they are copied first.
 */
static struct cost fork_paging(void)
{
    uint64_t results;
    prepare_fork();
    uint64_t began = now();
    uint64_t status =
        direct(CLEAVE_HYPERCALL, CLEAVE_OP_FORK, &fork_call, sizeof(fork_call), &results);
    uint64_t ended = now();
    if (results != 0) { /* nothing is written before the counters are read */
        status = direct(CLEAVE_HYPERCALL, CLEAVE_OP_STAT, &after, sizeof(after), &results);
        CHECK_EQ(status, CLEAVE_OK);
        struct cost cost = cost_of(began, ended);
        tell(&cost, 1);
    }
    CHECK_EQ(status, CLEAVE_OK);
    return child_told();
}

/*
 * uint64_t flat_fork(const struct cleave_fork *fork, struct cleave_stat *stat)
 * The same with paging off around it, so that the first instruction needs no walk: what the fork
 * alone costs. Returns the TSC's difference in the lower half and the child's index above. A child
 * reads `stat` before it writes anything.
 */
uint64_t flat_fork(const struct cleave_fork *fork, struct cleave_stat *stat);
__asm__(".text\n"
        "flat_fork:\n"
        "    push %rbx\n"
        "    push %rbp\n"
        "    mov %rsp, flat_stack\n"
        "    lgdt flat_gdt_pointer\n"
        "    pushq $0x18\n"
        "    pushq $1f\n"
        "    lretq\n"
        "    .code32\n"
        "1:  mov %cr0, %eax\n"
        "    and $0x7fffffff, %eax\n"
        "    mov %eax, %cr0\n"
        "    mov %esi, %ebp\n"
        "    mov %edi, %ecx\n"
        "    rdtsc\n"
        "    mov %eax, %esi\n"
        "    mov $55, %eax\n" /* CLEAVE_HYPERCALL */
        "    mov $12, %ebx\n" /* CLEAVE_OP_FORK */
        "    mov $56, %edx\n" /* sizeof(struct cleave_fork) */
        "    vmmcall\n"
        "    mov %edx, %edi\n"
        "    rdtsc\n"
        "    sub %esi, %eax\n"
        "    mov %eax, %esi\n"
        "    test %edi, %edi\n"
        "    jz 2f\n"
        "    mov $55, %eax\n"
        "    mov $17, %ebx\n" /* CLEAVE_OP_STAT */
        "    mov %ebp, %ecx\n"
        "    mov $1032, %edx\n" /* sizeof(struct cleave_stat) */
        "    vmmcall\n"
        "2:  mov %cr0, %eax\n"
        "    or $0x80000000, %eax\n"
        "    mov %eax, %cr0\n"
        "    ljmp $8, $3f\n"
        "    .code64\n"
        "3:  mov flat_stack, %rsp\n"
        "    pop %rbp\n"
        "    pop %rbx\n"
        "    mov %edi, %eax\n"
        "    shl $32, %rax\n"
        "    mov %esi, %esi\n"
        "    or %rsi, %rax\n"
        "    ret\n"
        "    .data\n"
        "    .align 16\n"
        "flat_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff\n"
        "flat_gdt_pointer: .word 31\n"
        "    .quad flat_gdt\n"
        "flat_stack: .quad 0\n"
        "    .text\n");
_Static_assert(CLEAVE_HYPERCALL == 55 && CLEAVE_OP_FORK == 12 && CLEAVE_OP_STAT == 17 &&
                   sizeof(struct cleave_fork) == 56 && sizeof(struct cleave_stat) == 1032,
               "the numbers in flat_fork()");

static struct cost fork_flat(void)
{
    prepare_fork();
    uint64_t result = flat_fork(&fork_call, &after);
    if (result >> 32 != 0) {
        struct cost cost = cost_of(0, (uint32_t)result);
        tell(&cost, 1);
    }
    return child_told();
}

static void forks(const char *name, struct cost (*fork_once)(void))
{
    struct cost costs[ROUNDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        costs[i] = fork_once();
    }
    report(name, costs);
}

/* A write of a child at `at`. */
static struct cost write_once(uint64_t at)
{
    uint64_t value = *word(at); /* the guest's own tables are its own after this */
    read_counters(&before);
    uint64_t began = now();
    *word(at) = ~value;
    uint64_t ended = now();
    read_counters(&after);
    return cost_of(began, ended);
}

static void writes(void)
{
    static struct cost costs[3][ROUNDS];
    static struct cost told[2];
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned half = 0; half < 2; half++) {
            if (fork_self(1, 0, NULL) == 1) {
                struct cost first = write_once(DENSE + 6 * MIB);
                struct cost second =
                    write_once(half == 0 ? DENSE + 8 * MIB : DENSE + 6 * MIB + 5 * PAGE);
                struct cost both[2] = {first, second};
                tell(both, 2);
            }
            hear(told, 2);
            costs[0][i] = told[0];
            costs[1 + half][i] = told[1];
        }
    }
    report("hv.write.first", costs[0]);
    report("hv.write.further_leaf", costs[1]);
    report("hv.write.further_page", costs[2]);
}

/* Until the domain's memory at `at` reads `value`. */
static void wait_for_word(uint32_t domain, uint64_t at, uint64_t value)
{
    uint64_t found = ~value;
    struct cleave_copy copy = {
        .domain = domain, .at = at, .buffer = (uint64_t)&found, .size = sizeof(found)};
    while (found != value) {
        yield();
        CHECK_EQ(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_OK);
    }
}

/* A child that writes one page and then stands still. */
static void resets(void)
{
    struct cost costs[ROUNDS];
    uint32_t id;
    uint64_t results;
    fork_call = (struct cleave_fork){.domain = CLEAVE_DOMAIN_SELF,
                                     .count = 1,
                                     .flags = CLEAVE_FORK_BASE,
                                     .limit = UINT64_MAX,
                                     .domains = (uint64_t)&id};
    results = 0;
    CHECK_EQ(direct(CLEAVE_HYPERCALL, CLEAVE_OP_FORK, &fork_call, sizeof(fork_call), &results),
             CLEAVE_OK);
    if (results != 0) {
        *word(DENSE + 6 * MIB) = 2;
        for (;;) {
            yield();
        }
    }
    struct cleave_domain domain = {.domain = id};
    for (unsigned i = 0; i < ROUNDS; i++) {
        wait_for_word(id, DENSE + 6 * MIB, 2); /* where the base has another */
        yield();
        yield();
        read_counters(&before);
        uint64_t began = now();
        uint64_t status =
            direct(CLEAVE_HYPERCALL, CLEAVE_OP_RESET, &domain, sizeof(domain), &results);
        uint64_t ended = now();
        read_counters(&after);
        CHECK_EQ(status, CLEAVE_OK);
        costs[i] = cost_of(began, ended);
    }
    destroy(id);
    report("hv.reset", costs);
}

static void idle_memory(void)
{
    static uint32_t ids[IDLE];
    uint64_t free = stat_of(CLEAVE_DOMAIN_SELF)->pool_free;
    CHECK_EQ(fork_self(IDLE, CLEAVE_FORK_PAUSED, ids), 0);
    free -= stat_of(CLEAVE_DOMAIN_SELF)->pool_free;
    figure("hv.fork.idle_memory", free / IDLE, "bytes");
    for (unsigned i = 0; i < IDLE; i++) {
        destroy(ids[i]);
    }
}

static void populate(uint64_t at, uint64_t size, unsigned order, uint32_t flags)
{
    struct cleave_map map = {.domain = CLEAVE_DOMAIN_SELF,
                             .policy = PRIVATE,
                             .rights = RW,
                             .order = (uint8_t)order,
                             .at = at,
                             .size = size,
                             .flags = flags};
    CHECK_EQ(CLEAVE(CLEAVE_OP_MAP, &map), CLEAVE_OK);
}

/* The guest's own tables, of 1 GiB pages, one to one. */
static void map_self(void)
{
    uint64_t *pdpt = (uint64_t *)(guest_pml4[0] & ~UINT64_C(0xfff));
    for (uint64_t at = SPARSE; at < SPARSE + SPARSE_SIZE; at += GIB) {
        pdpt[at / GIB] = at | 0xe3;
    }
    pdpt_dense[0] = DENSE | 0xe3;
    guest_pml4[1] = (uint64_t)pdpt_dense | 0x23;
}

void guest_story(void)
{
    CHECK(guest_amd);
    clock_cost = now();
    clock_cost = now() - clock_cost;
    map_self();
    null_call();
    forks("hv.fork.64m", fork_flat);
    forks("hv.fork.64m.paging", fork_paging);
    idle_memory();
    populate(DENSE, DENSE_SIZE, 1, CLEAVE_MAP_POPULATE);
    CHECK_EQ(lookup(DENSE + DENSE_SIZE - 1).order, 1);
    *word(DENSE + 6 * MIB) = 1;
    writes();
    resets();
    populate(SPARSE, SPARSE_SIZE, 0, 0);
    for (uint64_t at = SPARSE; at < SPARSE + SPARSE_SIZE; at += SPARSE_STEP) {
        *word(at) = at;
    }
    forks("hv.fork.64g", fork_flat);
    forks("hv.fork.64g.paging", fork_paging);
    audit_clean();
}
