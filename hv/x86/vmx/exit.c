/* SPDX-License-Identifier: BSD-2-Clause */
/* Why a guest left, from exit reason and qualification (SDM 3C 28.2, 3D appendix C), in the terms
 * of hvm.h. */
#include "fault.h"
#include "switch.h"
#include "vmcs.h"

#define DR6_STATUS UINT64_C(0x600f) /* BS, BD, B3 to B0 */
#define EVENT_PRIVILEGED_SOFTWARE 5u
#define DR7_GD (UINT64_C(1) << 13)

static void inject_gp(struct hvm_vcpu *vcpu)
{
    hvm_inject(vcpu, HVM_EVENT_EXCEPTION(EXCEPTION_GP) | HVM_EVENT_ERROR, 0);
}

static void decode_violation(struct hvm_exit *exit)
{
    uint64_t q = exit->detail;
    exit->kind = HVM_EXIT_NESTED;
    exit->gpa = vmread(GUEST_PHYSICAL);
    exit->linear_valid = (q & VIOLATION_LINEAR_VALID) != 0;
    exit->linear = exit->linear_valid ? vmread(GUEST_LINEAR) : 0;
    exit->walking = exit->linear_valid && !(q & VIOLATION_TRANSLATED);
    exit->access = q & VIOLATION_WRITE   ? ACCESS_WRITE
                   : q & VIOLATION_FETCH ? ACCESS_EXEC
                                         : ACCESS_READ;
    /* An IRET that unblocked NMIs and did not complete is executed again (28.2.3). */
    if (q & VIOLATION_NMI_UNBLOCKED && !(vmread(VECTORING_EVENT) & HVM_EVENT_VALID)) {
        vmwrite(GUEST_INTERRUPTIBILITY, vmread(GUEST_INTERRUPTIBILITY) | BLOCKED_BY_NMI);
    }
}

static void decode_io(struct hvm_exit *exit)
{
    uint64_t q = exit->detail;
    exit->kind = HVM_EXIT_IO;
    exit->size = (uint8_t)((q & 7) + 1);
    exit->io_in = (uint8_t)(q >> 3 & 1);
    exit->io_string = (uint8_t)(q >> 4 & 1);
    exit->port = (uint16_t)(q >> 16);
}

/* A debug exception that leaves the guest has not changed its registers yet (28.2.1). */
static void set_debug_registers(const struct hvm_exit *exit)
{
    uint64_t dr6;
    __asm__ volatile("mov %%db6, %0" : "=r"(dr6));
    dr6 = (dr6 & ~UINT64_C(0xf)) | (exit->detail & DR6_STATUS);
    __asm__ volatile("mov %0, %%db6" : : "r"(dr6));
    vmwrite(GUEST_DR7, vmread(GUEST_DR7) & ~DR7_GD);
}

/* INT1 leaves the guest at the instruction, and its exception is told behind it (28.3.3). */
static void pass_int1(struct hvm_vcpu *vcpu, const struct hvm_exit *exit)
{
    vcpu->regs.rip += exit->length;
    vcpu->regs.rflags &= ~RFLAGS_RF;
    vmwrite(GUEST_INTERRUPTIBILITY,
            vmread(GUEST_INTERRUPTIBILITY) & ~(uint64_t)(BLOCKED_BY_STI | BLOCKED_BY_MOV_SS));
}

/* An exception is intercepted only so that the CPU leaves the guest: it goes there after all. An
 * NMI is the host's. */
static void decode_exception(struct hvm_vcpu *vcpu, struct hvm_exit *exit)
{
    uint32_t event = (uint32_t)vmread(EXIT_EVENT), vector = event & 0xff;
    if ((event >> 8 & 7) == 2) {
        __asm__ volatile("int $2"); /* its IRET lets the next one come */
    } else if (vector == EXCEPTION_DB) {
        set_debug_registers(exit);
        if ((event >> 8 & 7) == EVENT_PRIVILEGED_SOFTWARE) {
            pass_int1(vcpu, exit);
        }
        hvm_inject(vcpu, HVM_EVENT_EXCEPTION(vector), 0);
    } else if (vector == EXCEPTION_AC) {
        hvm_inject(vcpu, HVM_EVENT_EXCEPTION(vector) | HVM_EVENT_ERROR,
                   (uint32_t)vmread(EXIT_EVENT_ERROR));
    } else if (vector == EXCEPTION_MC) {
        hvm_machine_check();
    } else {
        exit->kind = HVM_EXIT_UNKNOWN;
    }
}

/* The guest wants other values in bits of CR0 that are the host's: they go to the shadow, and the
 * instruction is executed again by the CPU, which then finds nothing to exit for. */
static void write_cr0_shadow(struct hvm_vcpu *vcpu, uint64_t value)
{
    if (value & CR0_NW && !(value & CR0_CD)) {
        inject_gp(vcpu);
        return;
    }
    vmwrite(CR0_SHADOW, (vmread(CR0_SHADOW) & ~CR0_HOST) | (value & CR0_HOST));
}

static void access_cr8(struct hvm_vcpu *vcpu, const struct hvm_exit *exit, uint64_t *reg, bool read)
{
    if (read) {
        *reg = vcpu->cr8;
    } else if (*reg > 0xf) {
        inject_gp(vcpu);
        return;
    } else {
        vcpu->cr8 = *reg;
    }
    vmx_ops.skip(vcpu, exit);
}

static void access_cr(struct hvm_vcpu *vcpu, struct hvm_exit *exit)
{
    uint64_t *const registers = &vcpu->regs.rax; /* in the order of the encoding */
    uint64_t q = exit->detail;
    unsigned type = q >> 4 & 3;
    uint64_t *reg = &registers[q >> 8 & 15];
    switch (q & 15) {
    case 0:
        if (type == 0) {
            write_cr0_shadow(vcpu, *reg);
        } else {
            exit->kind = HVM_EXIT_UNKNOWN; /* CLTS and LMSW change no bit that is the host's */
        }
        break;
    case 4: /* guests have none of the bits that are the host's */
        inject_gp(vcpu);
        break;
    case 8:
        access_cr8(vcpu, exit, reg, type == 1);
        break;
    default:
        exit->kind = HVM_EXIT_UNKNOWN;
        break;
    }
}

/* What an instruction asks of the kernel; false: this exit was something else. */
static bool decode_instruction(struct hvm_exit *exit)
{
    switch (exit->code) {
    case EXIT_CPUID:
        exit->kind = HVM_EXIT_CPUID;
        return true;
    case EXIT_HLT:
        exit->kind = HVM_EXIT_HLT;
        return true;
    case EXIT_IO:
        decode_io(exit);
        return true;
    case EXIT_RDMSR:
        exit->kind = HVM_EXIT_RDMSR;
        return true;
    case EXIT_WRMSR:
        exit->kind = HVM_EXIT_WRMSR;
        return true;
    case EXIT_VMCALL:
        exit->kind = HVM_EXIT_HYPERCALL;
        return true;
    case EXIT_XSETBV:
        exit->kind = HVM_EXIT_XSETBV;
        return true;
    case EXIT_GETSEC:
    case EXIT_MWAIT:
    case EXIT_MONITOR:
    case EXIT_INVEPT:
    case EXIT_INVVPID:
        exit->kind = HVM_EXIT_INVALID_OP;
        return true;
    default:
        if (exit->code >= EXIT_VMCLEAR && exit->code <= EXIT_VMXON) {
            exit->kind = HVM_EXIT_INVALID_OP;
            return true;
        }
        return false;
    }
}

void vmx_decode(struct hvm_vcpu *vcpu, struct hvm_exit *exit)
{
    *exit = (struct hvm_exit){
        .kind = HVM_EXIT_INTERRUPT,
        .code = vmread(EXIT_REASON) & 0xffff,
        .detail = vmread(EXIT_QUALIFICATION),
        .length = (uint8_t)vmread(EXIT_LENGTH),
    };
    if (decode_instruction(exit)) {
        return;
    }
    switch (exit->code) {
    case EXIT_EPT_VIOLATION:
        decode_violation(exit);
        break;
    case EXIT_INTERRUPT: /* pending still, until IF is set */
    case EXIT_PREEMPTION_TIMER:
        break;
    case EXIT_EXCEPTION:
        decode_exception(vcpu, exit);
        break;
    case EXIT_WINDOW:
        vmx_window(vcpu, false);
        exit->kind = HVM_EXIT_WINDOW;
        break;
    case EXIT_CR:
        access_cr(vcpu, exit);
        break;
    case EXIT_RDPMC:
        inject_gp(vcpu);
        break;
    case EXIT_INVD:
    case EXIT_WBINVD: /* no guest has a device that does not see the caches */
        vmx_ops.skip(vcpu, exit);
        break;
    case EXIT_TRIPLE_FAULT:
        exit->kind = HVM_EXIT_TRIPLE_FAULT;
        break;
    case EXIT_EPT_MISCONFIGURATION:
        exit->detail = vmread(GUEST_PHYSICAL);
        exit->kind = HVM_EXIT_UNKNOWN;
        break;
    default:
        exit->kind = HVM_EXIT_UNKNOWN;
        break;
    }
}
