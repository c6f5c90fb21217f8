/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tries out the machine; see selftest.h. What cannot be seen here is never called ok: emulators
 * drop all translations at each entry, so that a flush that is missing would do no harm there.
 * Nested entries are changed directly, and put back. All state is the boot CPU's, but while
 * `assist` is set: then the vcpu is CPU 1's.
 */
#include "selftest.h"

#include "domain.h"
#include "fault.h"

/* The guest's pages, one to one: its page tables, code, and two of data. */
enum { PML4, PDPT, PD, PT, CODE, DATA, OTHER, PAGES };
#define PAGE_AT(page) ((uint64_t)(page) << PAGE_SHIFT)

#define GUEST_TABLE UINT64_C(0x23) /* present, writable, accessed */
#define GUEST_LEAF UINT64_C(0x63)  /* and dirty */
#define GUEST_FRESH UINT64_C(0x03) /* neither accessed nor dirty */
#define LONG_CODE 0xa9b            /* attributes of a 64-bit code segment */
#define RFLAGS_START 0x202         /* interrupts on: nothing but an interrupt may end a run */
#define SVM_RESERVED (UINT64_C(1) << 51)
#define NPF_PRESENT UINT64_C(1)
#define NPF_RESERVED UINT64_C(8)
#define EPT_MISCONFIGURATION 49u
#define SECONDS(n) ((n)*tsc_per_second)

extern const unsigned char selftest_guest[], selftest_guest_read[], selftest_guest_write[],
    selftest_guest_count[], selftest_guest_end[];

enum outcome { OK, FAILED, UNDECIDABLE };
struct result {
    enum outcome outcome;
    const char *why;
};

static struct space *space;
static uint64_t *page[PAGES]; /* the guest's, in the direct map */
static struct hvm_vcpu vcpu;
static uint32_t assist, stop; /* CPU 1 is to run the vcpu; to end that */
static struct hvm_exit assisted;

/* --- The guest -------------------------------------------------------------------------------- */

static pte_t *nested_entry(unsigned which)
{
    pte_t *table = frame_address(space->root);
    for (unsigned level = ROOT_LEVEL; level > 0; level--) {
        pte_t entry = table[level_slot(gfn(which), level)];
        MM_CHECK(pte_is_table(entry, level));
        table = frame_address(pte_pfn(entry));
    }
    return &table[level_slot(gfn(which), 0)];
}

static void set_entry(unsigned which, pte_t entry)
{
    __atomic_store_n(nested_entry(which), entry, __ATOMIC_SEQ_CST);
}

static void flush(void) { hvm->flush_root(vcpu.root); }

static enum cleave_status make_memory(struct mm_ctx *ctx, struct pool *pool)
{
    const struct region ram = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 0};
    enum cleave_status status = space_create(ctx, pool, UINT64_MAX, &space);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = space_set_region(ctx, space, gpa(0), PAGE_AT(PAGES), &ram);
    for (unsigned i = 0; i < PAGES && status == CLEAVE_OK; i++) {
        uint64_t zero = 0, done;
        status = space_write(ctx, space, gpa(PAGE_AT(i)), &zero, sizeof(zero), NULL, &done);
        if (status == CLEAVE_OK) {
            page[i] = frame_address(pte_pfn(*nested_entry(i)));
        }
    }
    return status;
}

static void fill_memory(void)
{
    page[PML4][0] = PAGE_AT(PDPT) | GUEST_TABLE;
    page[PDPT][0] = PAGE_AT(PD) | GUEST_TABLE;
    page[PD][0] = PAGE_AT(PT) | GUEST_TABLE;
    for (unsigned i = 0; i < PAGES; i++) {
        page[PT][i] = PAGE_AT(i) | GUEST_LEAF;
    }
    __builtin_memcpy(page[CODE], selftest_guest, (size_t)(selftest_guest_end - selftest_guest));
}

static enum cleave_status make_vcpu(struct mm_ctx *ctx)
{
    pfn_t control, xsave;
    enum cleave_status status = object_alloc(ctx, &space->payer, &control);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = object_alloc(ctx, &space->payer, &xsave);
    if (status != CLEAVE_OK) {
        object_free(ctx, control);
        return status;
    }
    vcpu.control = PAGE_AT(control.v);
    vcpu.xsave = frame_address(xsave);
    vcpu.root = PAGE_AT(space->root.v);
    vcpu.loaded_on = -1;
    return CLEAVE_OK;
}

static uint64_t address_of(const unsigned char *piece)
{
    return PAGE_AT(CODE) + (uint64_t)(piece - selftest_guest);
}

/* 64-bit code at `piece` with RDI at page `which`. */
static struct hvm_state state_at(const unsigned char *piece, unsigned which)
{
    struct hvm_state state;
    hvm_state_start(&state, 0, 0);
    state.regs.rip = address_of(piece);
    state.regs.rdi = PAGE_AT(which);
    state.regs.rflags = RFLAGS_START;
    state.cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE;
    state.cr4 = CR4_PAE;
    state.cr3 = PAGE_AT(PML4);
    state.efer = EFER_LME | EFER_LMA;
    state.segment[SEG_CS].attributes = LONG_CODE;
    return state;
}

static void begin(const unsigned char *piece, unsigned which)
{
    struct hvm_state state = state_at(piece, which);
    hvm->vcpu_restore(&vcpu, &state);
}

/* Runs the vcpu up to an exit that is not just an interrupt. False when `*until` is set before;
 * null: when none comes in a second. */
static bool run_until(const uint32_t *until, struct hvm_exit *exit)
{
    struct percpu *cpu = this_cpu();
    uint64_t end = read_tsc() + SECONDS(5);
    do {
        if (__atomic_exchange_n(&cpu->kicked, 0, __ATOMIC_ACQ_REL)) {
            (void)flush_acknowledge(&cpu->ctx);
        }
        timer_arm(until == NULL ? end : 0);
        hvm->run(&vcpu, exit);
        if (exit->kind != HVM_EXIT_INTERRUPT) {
            timer_arm(0);
            return true;
        }
        cpu_take_interrupts();
    } while (until != NULL ? !__atomic_load_n(until, __ATOMIC_ACQUIRE) : read_tsc() < end);
    return false;
}

static bool run(struct hvm_exit *exit) { return run_until(NULL, exit); }

static bool is_fault(const struct hvm_exit *exit, unsigned which, enum access access)
{
    return exit->kind == HVM_EXIT_NESTED && exit->gpa >> PAGE_SHIFT == which &&
           exit->access == access;
}

/* --- The checks ------------------------------------------------------------------------------- */

/* To set an accessed bit, the CPU writes into the guest's page table: not when that is read-only.
 * Where dirty bits are on, and on AMD, all its reads there count as writes (SDM 3C 29.3.3.2, APM 2
 * 15.25.6). */
static struct result walker_read_only(void)
{
    struct hvm_exit exit;
    pte_t entry = *nested_entry(PT);

    page[PT][DATA] = PAGE_AT(DATA) | GUEST_FRESH;
    set_entry(PT, pte_without_write(entry));
    flush();
    begin(selftest_guest_read, DATA);
    bool left = run(&exit);
    bool written = page[PT][DATA] != (PAGE_AT(DATA) | GUEST_FRESH);
    set_entry(PT, entry);
    page[PT][DATA] = PAGE_AT(DATA) | GUEST_LEAF;
    flush();
    if (written) {
        return (struct result){FAILED, "the CPU writes accessed bits into read-only frames"};
    }
    if (!left || !is_fault(&exit, PT, ACCESS_WRITE)) {
        return (struct result){FAILED, "no nested page fault for the guest's page table"};
    }
    return (struct result){OK, NULL};
}

/* An entry with a reserved bit must not translate. The core asks its own tables what a fault is
 * about, so a CPU that calls this one "not present" does no harm. */
static struct result reserved_bits(void)
{
    struct hvm_exit exit;
    pte_t entry = *nested_entry(DATA);
    bool ept = hvm == &vmx_ops;

    if (!ept && (cpuid(0x80000008, 0).eax & 0xff) > 51) {
        return (struct result){UNDECIDABLE, "no address bit is reserved"};
    }
    /* EPT: writable but not readable (29.3.3.1). */
    set_entry(DATA,
              ept ? entry & ~(ept_format.table_bits | ept_format.exec) : entry | SVM_RESERVED);
    flush();
    begin(selftest_guest_read, DATA);
    bool left = run(&exit);
    set_entry(DATA, entry);
    flush();
    if (ept) {
        bool right = left && exit.kind == HVM_EXIT_UNKNOWN && exit.code == EPT_MISCONFIGURATION;
        return right ? (struct result){OK, NULL}
                     : (struct result){FAILED, "an entry that cannot be is used"};
    }
    if (!left || !is_fault(&exit, DATA, ACCESS_READ)) {
        return (struct result){FAILED, "a reserved bit is ignored"};
    }
    return (exit.detail & (NPF_PRESENT | NPF_RESERVED)) == (NPF_PRESENT | NPF_RESERVED)
               ? (struct result){OK, NULL}
               : (struct result){UNDECIDABLE, "faults at reserved bits are told without P"};
}

/* Reads the data page; false when the guest does not get there. */
static bool read_data(uint64_t *value)
{
    struct hvm_exit exit;
    vcpu.regs.rip = address_of(selftest_guest_read);
    bool left = run(&exit) && exit.kind == HVM_EXIT_HLT;
    *value = vcpu.regs.rax;
    return left;
}

/* Does a translation outlive an exit? And does a flush end it? */
static struct result local_flush(void)
{
    pte_t entry = *nested_entry(DATA), other = *nested_entry(OTHER);
    uint64_t first = 0, second = 0, third = 0;

    page[DATA][0] = 1;
    page[OTHER][0] = 2;
    flush();
    begin(selftest_guest_read, DATA);
    bool done = read_data(&first);
    set_entry(DATA, other);
    done = done && read_data(&second);
    flush();
    done = done && read_data(&third);
    set_entry(DATA, entry);
    flush();
    if (!done || first != 1 || third != 2) {
        return (struct result){FAILED, "a flush leaves an old translation in use"};
    }
    return second == 1 ? (struct result){OK, NULL}
                       : (struct result){UNDECIDABLE, "entries drop all translations"};
}

/* IA-32e mode without CR4.PAE is refused by both (SDM 3C 27.3.1.1, APM 2 15.5.1). */
static struct result entry_refused(void)
{
    struct hvm_exit exit;
    struct hvm_state state = state_at(selftest_guest_write, DATA);

    page[DATA][0] = 0;
    state.regs.rax = 1;
    state.cr4 = 0;
    hvm->vcpu_restore(&vcpu, &state);
    bool left = run(&exit);
    if (!left || exit.kind != HVM_EXIT_ENTRY_FAILED) {
        return (struct result){FAILED, "a state that cannot be is entered"};
    }
    if (page[DATA][0] != 0 || vcpu.regs.rip != state.regs.rip || vcpu.regs.rax != 1) {
        return (struct result){FAILED, "something ran nevertheless"};
    }
    state.cr4 = CR4_PAE;
    hvm->vcpu_restore(&vcpu, &state);
    left = run(&exit);
    if (!left || exit.kind != HVM_EXIT_HLT || page[DATA][0] != 1) {
        return (struct result){FAILED, "with its state repaired it does not run"};
    }
    return (struct result){OK, NULL};
}

/* --- With another CPU ------------------------------------------------------------------------- */

void selftest_assist(void)
{
    struct percpu *cpu = this_cpu();
    if (cpu->id != 1 || !__atomic_load_n(&assist, __ATOMIC_ACQUIRE)) {
        return;
    }
    if (flush_enter(&cpu->ctx, space) == CLEAVE_OK) {
        if (!run_until(&stop, &assisted)) {
            assisted.kind = HVM_EXIT_INTERRUPT;
        }
        flush_leave(&cpu->ctx);
    }
    hvm->vcpu_unload(&vcpu);
    __atomic_store_n(&assist, 0, __ATOMIC_RELEASE);
}

/* Does the guest count on by `by`, before it leaves CPU 1 or the time is up? */
static bool counts(uint64_t by, uint64_t ticks)
{
    uint64_t end = read_tsc() + ticks;
    uint64_t from = __atomic_load_n(&page[DATA][0], __ATOMIC_ACQUIRE);
    while (__atomic_load_n(&page[DATA][0], __ATOMIC_ACQUIRE) - from < by) {
        if (read_tsc() > end || !__atomic_load_n(&assist, __ATOMIC_ACQUIRE)) {
            return false;
        }
        cpu_pause();
    }
    return true;
}

static void end_assist(void)
{
    uint64_t end = read_tsc() + SECONDS(5);
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    cpu_send(1, VECTOR_RESCHED);
    while (__atomic_load_n(&assist, __ATOMIC_ACQUIRE)) {
        if (read_tsc() > end) {
            crash("self-test: CPU 1 does not leave its guest");
        }
        cpu_pause();
    }
}

/* A guest that writes and never leaves keeps its right to, until the flush has come to its CPU. */
static struct result remote_flush(struct mm_ctx *ctx)
{
    pte_t entry = *nested_entry(DATA);
    struct flush_batch batch;

    if (boot_info.cpus < 2) {
        return (struct result){UNDECIDABLE, "there is one CPU"};
    }
    page[DATA][0] = 0;
    begin(selftest_guest_count, DATA);
    hvm->vcpu_unload(&vcpu);
    __atomic_store_n(&assist, 1, __ATOMIC_RELEASE);
    bool began = counts(1000, SECONDS(5));
    set_entry(DATA, pte_without_write(*nested_entry(DATA)));
    bool keeps = began && counts(1000, SECONDS(5));
    flush_begin(&batch, space);
    flush_need(&batch);
    flush_finish(ctx, &batch);
    bool goes_on = counts(1, SECONDS(1) / 20);
    end_assist();
    set_entry(DATA, entry);
    flush();
    if (!began) {
        return (struct result){FAILED, "CPU 1 does not run the guest"};
    }
    if (goes_on || !is_fault(&assisted, DATA, ACCESS_WRITE)) {
        return (struct result){FAILED, "CPU 1 still writes by an old translation"};
    }
    return keeps ? (struct result){OK, NULL}
                 : (struct result){UNDECIDABLE, "CPU 1 drops translations by itself"};
}

/* --- All of them ------------------------------------------------------------------------------ */

static bool say(const char *name, struct result result)
{
    switch (result.outcome) {
    case OK:
        print("selftest: %s: ok\n", name);
        return true;
    case FAILED:
        print("selftest: %s: fail (%s)\n", name, result.why);
        return false;
    case UNDECIDABLE:
        print("selftest: %s: not decidable here (%s)\n", name, result.why);
        return true;
    }
    return false;
}

/* Without them a walk of the guest's page tables is no write to them, and copies none after a fork:
 * better, where the CPU then still asks before it writes an accessed bit. */
static void choose_dirty_bits(void)
{
    if (hvm != &vmx_ops) {
        return;
    }
    if (!hvm_ept_dirty_bits) { /* all checks so far were without */
        print("selftest: EPT dirty bits: off from the start\n");
        return;
    }
    hvm_ept_dirty_bits = false;
    struct result without = walker_read_only();
    hvm_ept_dirty_bits = without.outcome != OK;
    flush();
    print("selftest: EPT dirty bits: %s%s\n", hvm_ept_dirty_bits ? "on, without them " : "off",
          hvm_ept_dirty_bits ? without.why : "");
}

static bool run_all(struct mm_ctx *ctx)
{
    struct hvm_state state = state_at(selftest_guest_read, DATA);
    hvm->vcpu_init(&vcpu, &state);
    if (flush_enter(ctx, space) != CLEAVE_OK) {
        return false;
    }
    bool good = say("walker-read-only", walker_read_only());
    good &= say("reserved-bits", reserved_bits());
    good &= say("local-flush", local_flush());
    good &= say("entry-refused", entry_refused());
    if (good) {
        choose_dirty_bits();
    }
    flush_leave(ctx);
    good &= say("remote-flush", remote_flush(ctx));
    hvm->vcpu_unload(&vcpu);
    return good;
}

bool selftest_run(struct mm_ctx *ctx, struct pool *pool)
{
    bool good = false;
    enum cleave_status status = make_memory(ctx, pool);
    if (status == CLEAVE_OK) {
        status = make_vcpu(ctx);
    }
    if (status == CLEAVE_OK) {
        fill_memory();
        good = run_all(ctx);
        object_free(ctx, pfn((uint32_t)(vcpu.control >> PAGE_SHIFT)));
        object_free(ctx, pfn((uint32_t)(host_address(vcpu.xsave) >> PAGE_SHIFT)));
    } else {
        print("selftest: no memory for it (%s %lu)\n", ctx->error.argument, ctx->error.value);
    }
    if (space != NULL) {
        do {
            status = space_destroy(ctx, space);
        } while (status == CLEAVE_AGAIN);
        MM_CHECK(status == CLEAVE_OK);
    }
    return good;
}
