/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest of a few instructions, for each CPU. Its code, its page tables and a page to copy from
 * and to lie in frames of its own, at guest-physical addresses past what the driver uses; below
 * that, the CPU walks the tables of the space under test. The two meet in a root table that is the
 * guest's own: its entry 0 is copied from the space's root before each access.
 */
#include <string.h>

#include "hvm.h"
#include "machine.h"
#include "platform.h"

/* The guest's frames: tables of its own page tables, code, bytes; then nested tables. */
enum {
    PML4,
    PDPT,
    PD,
    PT,
    CODE,
    BYTES,
    GUEST_FRAMES,
    ROOT = GUEST_FRAMES,
    NESTED_PDPT,
    NESTED_PD,
    NESTED_PT,
    CONTROL,
    XSAVE,
    FRAMES
};

#define OWN_GPA (UINT64_C(1) << 39) /* what the root's entry 1 covers */
#define OWN_PAGE(page) (OWN_GPA + ((uint64_t)(page) << PAGE_SHIFT))

/* Linear pages. The first ones are not there, since registers that hold 0 point at them. */
enum { LINEAR_CODE = 16, LINEAR_BYTES = 18, LINEAR_DATA = 20 };
#define LINEAR(page) ((uint64_t)(page) << PAGE_SHIFT)

#define GUEST_TABLE UINT64_C(0x27) /* present, writable, user, accessed */
#define GUEST_LEAF UINT64_C(0x63)  /* present, writable, accessed, dirty */
#define GUEST_FETCH UINT64_C(0x65) /* present, user, accessed, dirty; read-only */
#define KERNEL_CODE 0xa9b          /* attributes of 64-bit segments */
#define USER_CODE 0xafb
#define USER_DATA 0xcf3
#define RFLAGS_ONE 0x2
#define RFLAGS_TF 0x100
#define RFLAGS_IF 0x200

struct guest {
    uint64_t frames; /* host-physical, FRAMES of them */
    struct hvm_vcpu vcpu;
};

extern const unsigned char trace_guest[], trace_guest_end[];

static uint64_t *frame_at(const struct guest *guest, unsigned which)
{
    return host_pointer(guest->frames + ((uint64_t)which << PAGE_SHIFT));
}

static pfn_t pfn_at(const struct guest *guest, unsigned which)
{
    return pfn((uint32_t)(guest->frames >> PAGE_SHIFT) + which);
}

struct guest *guest_take(unsigned cpu)
{
    static struct guest guests[SPEC_VCPUS];
    struct guest *guest = &guests[cpu];
    guest->frames = boot_take(FRAMES << PAGE_SHIFT, PAGE_SIZE, "trace guest");
    guest->vcpu.control = guest->frames + ((uint64_t)CONTROL << PAGE_SHIFT);
    guest->vcpu.xsave = frame_at(guest, XSAVE);
    guest->vcpu.root = guest->frames + ((uint64_t)ROOT << PAGE_SHIFT);
    guest->vcpu.loaded_on = -1;
    guest->vcpu.apic_id = cpu;
    return guest;
}

static void make_nested(struct guest *guest)
{
    unsigned parent[] = {ROOT, NESTED_PDPT, NESTED_PD};

    for (unsigned i = 0; i < 3; i++) {
        uint64_t *slot = frame_at(guest, parent[i]) + (i == 0);
        *slot = pte_with_write(pte_make_table(pfn_at(guest, NESTED_PDPT + i)));
    }
    for (unsigned i = 0; i < GUEST_FRAMES; i++) {
        frame_at(guest, NESTED_PT)[i] = pte_make_leaf(pfn_at(guest, i), 0, RIGHT_ALL, 0);
    }
}

/* 64-bit code in the linear page `page`. */
static struct hvm_state state_at(unsigned page, uint64_t offset)
{
    struct hvm_state state;
    hvm_state_start(&state, 0, 0);
    state.regs.rip = LINEAR(page) + offset;
    state.regs.rflags = RFLAGS_ONE | RFLAGS_IF;
    state.cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE;
    state.cr4 = CR4_PAE;
    state.cr3 = OWN_PAGE(PML4);
    state.efer = EFER_LME | EFER_LMA;
    state.segment[SEG_CS].attributes = KERNEL_CODE;
    return state;
}

void guest_make(struct guest *guest)
{
    struct hvm_state state = state_at(LINEAR_CODE, 0);

    make_nested(guest);
    for (unsigned i = PML4; i < PT; i++) {
        frame_at(guest, i)[0] = OWN_PAGE(i + 1) | GUEST_TABLE;
    }
    frame_at(guest, PT)[LINEAR_CODE] = OWN_PAGE(CODE) | GUEST_LEAF;
    frame_at(guest, PT)[LINEAR_BYTES] = OWN_PAGE(BYTES) | GUEST_LEAF;
    memcpy(frame_at(guest, CODE), trace_guest, (size_t)(trace_guest_end - trace_guest));
    hvm->vcpu_init(&guest->vcpu, &state);
}

/* Runs from `state` with `target` in the linear data page, up to an exit that is not just an
 * interrupt. */
static void run(struct guest *guest, const struct space *space, const struct hvm_state *state,
                uint64_t target, struct hvm_exit *exit)
{
    const uint64_t *root = (const uint64_t *)(const void *)abs_bytes(space->root.v);

    frame_at(guest, PT)[LINEAR_DATA] = target;
    frame_at(guest, ROOT)[0] = __atomic_load_n(root, __ATOMIC_ACQUIRE);
    hvm->flush_root(guest->vcpu.root);
    hvm->vcpu_restore(&guest->vcpu, state);
    for (;;) {
        hvm->run(&guest->vcpu, exit);
        if (exit->kind != HVM_EXIT_INTERRUPT) {
            return;
        }
        cpu_take_interrupts();
    }
}

/* True for the nested page fault that an access to `at` may end with. */
static bool is_fault(const struct hvm_exit *exit, uint64_t at, enum access access)
{
    return exit->kind == HVM_EXIT_NESTED && exit->gpa >> PAGE_SHIFT == at >> PAGE_SHIFT &&
           exit->access == access;
}

static _Noreturn void wrong_exit(const struct hvm_exit *exit, uint64_t at, enum access access)
{
    crash("exit %u (code %lx, detail %lx, gpa %lx, access %u) of an access %u to %lx", exit->kind,
          exit->code, exit->detail, exit->gpa, exit->access, access, at);
}

/* Copies between the page at `at` and the guest's own page; false: it faulted. */
static bool copy(struct guest *guest, const struct space *space, uint64_t at, bool write,
                 uint64_t size)
{
    struct hvm_state state = state_at(LINEAR_CODE, 0);
    uint64_t there = LINEAR(LINEAR_DATA) + (at & (PAGE_SIZE - 1));
    enum access access = write ? ACCESS_WRITE : ACCESS_READ;
    struct hvm_exit exit;

    state.regs.rcx = size;
    state.regs.rsi = write ? LINEAR(LINEAR_BYTES) : there;
    state.regs.rdi = write ? there : LINEAR(LINEAR_BYTES);
    run(guest, space, &state, (at & ~(PAGE_SIZE - 1)) | GUEST_LEAF, &exit);
    if (is_fault(&exit, at, access)) {
        return false;
    }
    if (exit.kind != HVM_EXIT_HLT || guest->vcpu.regs.rcx != 0) {
        wrong_exit(&exit, at, access);
    }
    return true;
}

/* Executes what stands at `at`, whatever it is: as a user who may write nothing, one instruction
 * at most, for whose trap there is no handler; most end by a triple fault. */
static bool fetch(struct guest *guest, const struct space *space, uint64_t at)
{
    struct hvm_state state = state_at(LINEAR_DATA, at & (PAGE_SIZE - 1));
    struct hvm_exit exit;

    state.regs.rflags |= RFLAGS_TF;
    state.segment[SEG_CS].attributes = USER_CODE;
    state.segment[SEG_SS].attributes = USER_DATA;
    state.segment[SEG_CS].selector = state.segment[SEG_SS].selector = 3;
    run(guest, space, &state, (at & ~(PAGE_SIZE - 1)) | GUEST_FETCH, &exit);
    if (is_fault(&exit, at, ACCESS_EXEC)) {
        return false;
    }
    if (exit.kind == HVM_EXIT_NESTED || exit.kind == HVM_EXIT_ENTRY_FAILED ||
        exit.kind == HVM_EXIT_UNKNOWN) {
        wrong_exit(&exit, at, ACCESS_EXEC);
    }
    return true;
}

bool guest_access(struct guest *guest, const struct space *space, uint64_t at, enum access access,
                  void *buffer, uint64_t size)
{
    if (access == ACCESS_WRITE) {
        memcpy(frame_at(guest, BYTES), buffer, size);
        return copy(guest, space, at, true, size);
    }
    if (access == ACCESS_EXEC && !fetch(guest, space, at)) {
        return false;
    }
    if (!copy(guest, space, at, false, size)) {
        return false; /* what may be executed may be read: the fault is the caller's to judge */
    }
    memcpy(buffer, frame_at(guest, BYTES), size);
    return true;
}
