/* SPDX-License-Identifier: BSD-2-Clause */
/* The notes of a core: the domain's vcpus, and what core_linux.c found. Records of a vcpu's state:
 * Xen's arch-x86/hvm/save.h. */
#include "core_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>

/* --- Vcpus ------------------------------------------------------------------------------------ */

const struct hvm_hw_cpu *core_next_cpu(const struct core *core, size_t *at, unsigned *vcpu)
{
    while (*at + sizeof(struct hvm_save_descriptor) <= core->context_size) {
        struct hvm_save_descriptor record;
        memcpy(&record, core->context + *at, sizeof(record));
        const unsigned char *body = core->context + *at + sizeof(record);
        *at += sizeof(record) + record.length;
        if (*at > core->context_size) {
            return NULL;
        }
        if (record.typecode == HVM_SAVE_CODE(CPU) && record.length >= sizeof(struct hvm_hw_cpu)) {
            *vcpu = record.instance;
            return (const struct hvm_hw_cpu *)(const void *)body;
        }
    }
    return NULL;
}

int core_plan_vcpus(struct core *core, xc_interface *xc, char *why)
{
    uint32_t domid = core->domain == CLEAVE_DOMAIN_CONTROL ? 0 : core->domain;
    unsigned vcpu;
    size_t at = 0;
    int size = xc_domain_hvm_getcontext(xc, domid, NULL, 0);
    core->context = size > 0 ? malloc((size_t)size) : NULL;
    if (core->context != NULL) {
        size = xc_domain_hvm_getcontext(xc, domid, core->context, (uint32_t)size);
    }
    if (size <= 0 || core->context == NULL) {
        snprintf(why, CLEAVE_MESSAGE_SIZE, "its vcpus cannot be read: %s", strerror(errno));
        return -EIO;
    }
    core->context_size = (size_t)size;
    while (core_next_cpu(core, &at, &vcpu) != NULL) {
        core->vcpus++;
    }
    return 0;
}

/* --- Notes ------------------------------------------------------------------------------------ */

static size_t padded(size_t size) { return (size + 3) & ~(size_t)3; }

static size_t note_size(const char *name, size_t size)
{
    return sizeof(Elf64_Nhdr) + padded(strlen(name) + 1) + padded(size);
}

/* What QEMU writes of a CPU beside these (target/i386/arch_dump.c, dump-guest-memory), by which
 * crash(8) takes a CPU's stack from its registers though the kernel has not crashed. */
struct segment {
    uint32_t selector, limit, flags, reserved;
    uint64_t base;
};
struct qemu_cpu {
    uint32_t version, size;
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rip, rflags;
    struct segment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
    uint64_t cr[5];
    uint64_t kernel_gs_base;
};
_Static_assert(sizeof(struct qemu_cpu) == 440, "as QEMU writes it");

size_t core_notes_size(const struct core *core)
{
    size_t vcpu = note_size("CORE", sizeof(struct elf_prstatus)) +
                  note_size("CORE", sizeof(elf_fpregset_t)) +
                  note_size("QEMU", sizeof(struct qemu_cpu));
    size_t info = core->info_size != 0 ? note_size("VMCOREINFO", core->info_size) : 0;
    return note_size("CORE", sizeof(struct elf_prpsinfo)) + core->vcpus * vcpu + info;
}

static void emit_note(struct core_writer *w, const char *name, uint32_t type, const void *bytes,
                      size_t size)
{
    static const char zeros[4];
    size_t length = strlen(name) + 1;
    const Elf64_Nhdr head = {(Elf64_Word)length, (Elf64_Word)size, type};
    core_emit(w, &head, sizeof(head));
    core_emit(w, name, length);
    core_emit(w, zeros, padded(length) - length);
    core_emit(w, bytes, size);
    core_emit(w, zeros, padded(size) - size);
}

static struct elf_prstatus status_of(const struct hvm_hw_cpu *cpu, unsigned vcpu)
{
    struct elf_prstatus status = {.pr_pid = (pid_t)vcpu + 1, .pr_fpvalid = 1};
    const struct user_regs_struct regs = {.r15 = cpu->r15,
                                          .r14 = cpu->r14,
                                          .r13 = cpu->r13,
                                          .r12 = cpu->r12,
                                          .rbp = cpu->rbp,
                                          .rbx = cpu->rbx,
                                          .r11 = cpu->r11,
                                          .r10 = cpu->r10,
                                          .r9 = cpu->r9,
                                          .r8 = cpu->r8,
                                          .rax = cpu->rax,
                                          .rcx = cpu->rcx,
                                          .rdx = cpu->rdx,
                                          .rsi = cpu->rsi,
                                          .rdi = cpu->rdi,
                                          .orig_rax = UINT64_MAX, /* in no system call */
                                          .rip = cpu->rip,
                                          .cs = cpu->cs_sel,
                                          .eflags = cpu->rflags,
                                          .rsp = cpu->rsp,
                                          .ss = cpu->ss_sel,
                                          .fs_base = cpu->fs_base,
                                          .gs_base = cpu->gs_base,
                                          .ds = cpu->ds_sel,
                                          .es = cpu->es_sel,
                                          .fs = cpu->fs_sel,
                                          .gs = cpu->gs_sel};
    _Static_assert(sizeof(regs) == sizeof(status.pr_reg), "the registers of a status");
    memcpy(&status.pr_reg, &regs, sizeof(regs));
    return status;
}

/* QEMU keeps a segment's attributes where a descriptor has them: bit 8 on, without the limit's bits
 * (Intel SDM 3A, 3.4.5); Xen's record has them side by side. */
#define SEGMENT(cpu, s)                                                                            \
    {                                                                                              \
        .selector = (cpu)->s##_sel, .limit = (cpu)->s##_limit,                                     \
        .flags = ((cpu)->s##_arbytes & 0xff) << 8 | ((cpu)->s##_arbytes & 0xf00) << 12,            \
        .base = (cpu)->s##_base                                                                    \
    }

static struct qemu_cpu qemu_cpu_of(const struct hvm_hw_cpu *cpu)
{
    return (struct qemu_cpu){.version = 1,
                             .size = sizeof(struct qemu_cpu),
                             .rax = cpu->rax,
                             .rbx = cpu->rbx,
                             .rcx = cpu->rcx,
                             .rdx = cpu->rdx,
                             .rsi = cpu->rsi,
                             .rdi = cpu->rdi,
                             .rsp = cpu->rsp,
                             .rbp = cpu->rbp,
                             .r8 = cpu->r8,
                             .r9 = cpu->r9,
                             .r10 = cpu->r10,
                             .r11 = cpu->r11,
                             .r12 = cpu->r12,
                             .r13 = cpu->r13,
                             .r14 = cpu->r14,
                             .r15 = cpu->r15,
                             .rip = cpu->rip,
                             .rflags = cpu->rflags,
                             .cs = SEGMENT(cpu, cs),
                             .ds = SEGMENT(cpu, ds),
                             .es = SEGMENT(cpu, es),
                             .fs = SEGMENT(cpu, fs),
                             .gs = SEGMENT(cpu, gs),
                             .ss = SEGMENT(cpu, ss),
                             .ldt = SEGMENT(cpu, ldtr),
                             .tr = SEGMENT(cpu, tr),
                             .gdt = {.limit = cpu->gdtr_limit, .base = cpu->gdtr_base},
                             .idt = {.limit = cpu->idtr_limit, .base = cpu->idtr_base},
                             .cr = {cpu->cr0, 0, cpu->cr2, cpu->cr3, cpu->cr4},
                             .kernel_gs_base = cpu->shadow_gs};
}

void core_emit_notes(const struct core *core, struct core_writer *w)
{
    const struct hvm_hw_cpu *cpu;
    struct elf_prpsinfo info = {.pr_sname = 'R', .pr_pid = 1};
    unsigned vcpu;
    size_t next = 0;
    snprintf(info.pr_fname, sizeof(info.pr_fname), "%s", core->name);
    snprintf(info.pr_psargs, sizeof(info.pr_psargs), "domain %u %s", core->domain, core->name);
    emit_note(w, "CORE", NT_PRPSINFO, &info, sizeof(info));
    while ((cpu = core_next_cpu(core, &next, &vcpu)) != NULL) {
        struct elf_prstatus status = status_of(cpu, vcpu);
        struct qemu_cpu own = qemu_cpu_of(cpu);
        emit_note(w, "CORE", NT_PRSTATUS, &status, sizeof(status));
        emit_note(w, "CORE", NT_FPREGSET, cpu->fpu_regs, sizeof(cpu->fpu_regs));
        emit_note(w, "QEMU", 0, &own, sizeof(own));
    }
    if (core->info_size != 0) {
        emit_note(w, "VMCOREINFO", 0, core->info, core->info_size);
    }
}
