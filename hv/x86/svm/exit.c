/* SPDX-License-Identifier: BSD-2-Clause */
/* Why a guest left, from the exit code of APM volume 2, appendix C, in the terms of hvm.h. */
#include "fault.h"
#include "switch.h"
#include "vmcb.h"

/* CPUs without next-RIP saving do not say how long an instruction was. Those that are skipped have
 * one encoding each; a guest that puts prefixes before it is not helped. */
static void set_length(const struct hvm_vcpu *vcpu, struct hvm_exit *exit, uint8_t length)
{
    uint64_t next = svm_vmcb(vcpu)->next_rip;
    exit->length = svm_has_next_rip ? (uint8_t)(next - vcpu->regs.rip) : length;
}

static void decode_nested(const struct vmcb *vmcb, struct hvm_exit *exit)
{
    exit->kind = HVM_EXIT_NESTED;
    exit->gpa = vmcb->exit_info2;
    exit->walking = (vmcb->exit_info1 & NPF_WALKING) != 0;
    exit->access = vmcb->exit_info1 & NPF_WRITE   ? ACCESS_WRITE
                   : vmcb->exit_info1 & NPF_FETCH ? ACCESS_EXEC
                                                  : ACCESS_READ;
}

static void decode_io(const struct hvm_vcpu *vcpu, const struct vmcb *vmcb, struct hvm_exit *exit)
{
    uint64_t info = vmcb->exit_info1;
    exit->kind = HVM_EXIT_IO;
    exit->port = (uint16_t)(info >> 16);
    exit->size = (uint8_t)(info >> 4 & 7);
    exit->io_in = (info & EXIT_IO_IN) != 0;
    exit->io_string = (info & EXIT_IO_STRING) != 0;
    exit->length = (uint8_t)(vmcb->exit_info2 - vcpu->regs.rip);
}

/* An exception is intercepted only so that the CPU leaves the guest: it goes there after all. */
static void reflect(struct hvm_vcpu *vcpu, const struct vmcb *vmcb, uint32_t vector)
{
    bool has_error = vector == EXCEPTION_AC;
    hvm_inject(vcpu, HVM_EVENT_EXCEPTION(vector) | (has_error ? HVM_EVENT_ERROR : 0),
               has_error ? (uint32_t)vmcb->exit_info1 : 0);
}

static void skip_here(struct hvm_vcpu *vcpu, struct hvm_exit *exit, uint8_t length)
{
    set_length(vcpu, exit, length);
    svm_ops.skip(vcpu, exit);
}

/* What an instruction asks of the kernel; false: this exit was something else. */
static bool decode_instruction(struct hvm_vcpu *vcpu, const struct vmcb *vmcb,
                               struct hvm_exit *exit)
{
    switch (vmcb->exit_code) {
    case VMEXIT_CPUID:
        exit->kind = HVM_EXIT_CPUID;
        set_length(vcpu, exit, 2);
        return true;
    case VMEXIT_HLT:
        exit->kind = HVM_EXIT_HLT;
        set_length(vcpu, exit, 1);
        return true;
    case VMEXIT_IO:
        decode_io(vcpu, vmcb, exit);
        return true;
    case VMEXIT_MSR:
        exit->kind = vmcb->exit_info1 & 1 ? HVM_EXIT_WRMSR : HVM_EXIT_RDMSR;
        set_length(vcpu, exit, 2);
        return true;
    case VMEXIT_VMMCALL:
        exit->kind = HVM_EXIT_HYPERCALL;
        set_length(vcpu, exit, 3);
        return true;
    case VMEXIT_XSETBV:
        exit->kind = HVM_EXIT_XSETBV;
        set_length(vcpu, exit, 3);
        return true;
    case VMEXIT_VMRUN:
    case VMEXIT_INVLPGA:
    case VMEXIT_RDPRU:
        exit->kind = HVM_EXIT_INVALID_OP;
        return true;
    default:
        if ((vmcb->exit_code >= VMEXIT_VMLOAD && vmcb->exit_code <= VMEXIT_SKINIT) ||
            (vmcb->exit_code >= VMEXIT_MONITOR && vmcb->exit_code <= VMEXIT_MWAIT_ARMED)) {
            exit->kind = HVM_EXIT_INVALID_OP;
            return true;
        }
        return false;
    }
}

void svm_decode(struct hvm_vcpu *vcpu, struct hvm_exit *exit)
{
    const struct vmcb *vmcb = svm_vmcb(vcpu);
    *exit = (struct hvm_exit){
        .kind = HVM_EXIT_INTERRUPT, .code = vmcb->exit_code, .detail = vmcb->exit_info1};
    if (decode_instruction(vcpu, vmcb, exit)) {
        return;
    }
    switch (vmcb->exit_code) {
    case VMEXIT_NPF:
        decode_nested(vmcb, exit);
        break;
    case VMEXIT_INTR:
    case VMEXIT_NMI:
    case VMEXIT_INIT:
        break; /* pending still, until GIF and IF are set */
    case VMEXIT_VINTR:
        svm_window(vcpu, false);
        exit->kind = HVM_EXIT_WINDOW;
        break;
    case VMEXIT_EXCEPTION + EXCEPTION_DB:
    case VMEXIT_EXCEPTION + EXCEPTION_AC:
        reflect(vcpu, vmcb, (uint32_t)vmcb->exit_code - VMEXIT_EXCEPTION);
        break;
    case VMEXIT_EXCEPTION + EXCEPTION_MC:
        hvm_machine_check();
        break;
    case VMEXIT_RDPMC:
        hvm_inject(vcpu, HVM_EVENT_EXCEPTION(EXCEPTION_GP) | HVM_EVENT_ERROR, 0);
        break;
    case VMEXIT_IRET: /* not executed yet: an NMI may come behind it, as behind a shadow */
        vcpu->nmi_masked = 0;
        svm_vmcb(vcpu)->shadow |= 1; /* is loaded at each entry (15.15.3) */
        svm_intercept(vcpu, 0, VMCB_INTERCEPT0_IRET, false);
        break;
    case VMEXIT_INVD:
    case VMEXIT_WBINVD: /* no guest has a device that does not see the caches */
        skip_here(vcpu, exit, 2);
        break;
    case VMEXIT_SHUTDOWN:
        exit->kind = HVM_EXIT_TRIPLE_FAULT;
        break;
    default:
        exit->kind = HVM_EXIT_UNKNOWN;
        break;
    }
}
