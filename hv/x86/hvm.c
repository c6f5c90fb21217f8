/* SPDX-License-Identifier: BSD-2-Clause */
/* Which world switch runs, and the two states in which a vcpu starts. */
#include "hvm.h"

#include "platform.h"
#include "switch.h"

#define PAT_RESET UINT64_C(0x0007040600070406)
#define DR6_RESET UINT64_C(0xffff0ff0)
#define DR7_RESET UINT64_C(0x400)
#define RFLAGS_RESET UINT64_C(2)

#define LEAF7_EDX_ARCH_CAPABILITIES (1u << 29)
#define MSR_ARCH_CAPABILITIES 0x10au
#define PSCHANGE_MC_NO (UINT64_C(1) << 6) /* SDM 4 table 2-2 */

const struct hvm_ops *hvm;
bool hvm_ept_dirty_bits = true;
bool hvm_huge_exec;

/* May an instruction fetch by a huge leaf stop this CPU when the leaf's size changes (iTLB
 * multihit, CVE-2018-12207)? AMD's never; Intel's, unless they say that they do not. */
static bool has_multihit(bool intel)
{
    uint64_t capabilities = 0;
    bool told = cpuid(0, 0).eax >= 7 && cpuid(7, 0).edx & LEAF7_EDX_ARCH_CAPABILITIES &&
                rdmsr_safe(MSR_ARCH_CAPABILITIES, &capabilities);
    return intel && !(told && capabilities & PSCHANGE_MC_NO);
}

static void choose_huge_exec(bool intel)
{
    bool multihit = has_multihit(intel);
    hvm_huge_exec = boot_option("huge-exec") || (!multihit && !boot_option("no-huge-exec"));
    print("machine: guests %s by huge leaves (iTLB multihit: %s)\n",
          hvm_huge_exec ? "execute" : "do not execute", multihit ? "yes, or not told" : "no");
}

bool hvm_choose(void)
{
    bool intel = cpuid(1, 0).ecx & 1u << 5;
    bool amd = cpuid(0x80000000, 0).eax >= 0x8000000a && cpuid(0x80000001, 0).ecx & 1u << 2;
    if (!intel && !amd) {
        print("this CPU has neither VMX (CPUID.1:ECX[5]) nor SVM (CPUID.80000001H:ECX[2])\n");
        return false;
    }
    const struct hvm_ops *ops = intel ? &vmx_ops : &svm_ops;
    if (!ops->present()) {
        print("%s cannot be used on this CPU\n", ops->name);
        return false;
    }
    ops->prepare();
    choose_huge_exec(intel);
    hvm = ops;
    return true;
}

static void start_common(struct hvm_state *state)
{
    *state = (struct hvm_state){
        .regs.rflags = RFLAGS_RESET,
        .xcr0 = 1,
        .dr6 = DR6_RESET,
        .dr7 = DR7_RESET,
        .pat = PAT_RESET,
    };
}

void hvm_state_start(struct hvm_state *state, uint32_t eip, uint32_t ebx)
{
    const struct hvm_segment data = {.attributes = 0xc93, .limit = UINT32_MAX};
    const struct hvm_segment unusable = {.attributes = 0x1000};
    start_common(state);
    state->regs.rip = eip;
    state->regs.rbx = ebx;
    state->cr0 = CR0_PE | CR0_ET;
    state->segment[SEG_CS] = (struct hvm_segment){.attributes = 0xc9b, .limit = UINT32_MAX};
    state->segment[SEG_DS] = state->segment[SEG_ES] = state->segment[SEG_SS] = data;
    state->segment[SEG_FS] = state->segment[SEG_GS] = state->segment[SEG_LDTR] = unusable;
    state->segment[SEG_TR] = (struct hvm_segment){.attributes = 0x8b, .limit = 0x67};
}

void hvm_state_skip(struct hvm_state *state, uint8_t length)
{
    state->regs.rip += length;
    state->regs.rflags &= ~RFLAGS_RF;
    state->interruptibility &= ~1u;
    if (state->regs.rflags & RFLAGS_TF) { /* the instruction was a single step */
        state->dr6 |= DR6_BS;
        state->pending = HVM_EVENT_EXCEPTION(EXCEPTION_DB);
        state->pending_error = 0;
    }
}

void hvm_state_sipi(struct hvm_state *state, uint8_t vector)
{
    const struct hvm_segment data = {.attributes = 0x93, .limit = 0xffff};
    start_common(state);
    state->regs.rdx = 0x600; /* family 6, as after INIT (SDM 3A table 10-1) */
    state->cr0 = CR0_CD | CR0_NW | CR0_ET;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        state->segment[i] = data;
    }
    state->segment[SEG_CS] = (struct hvm_segment){
        .selector = (uint16_t)(vector << 8),
        .attributes = 0x9b,
        .limit = 0xffff,
        .base = (uint64_t)vector << 12,
    };
    state->segment[SEG_LDTR] = (struct hvm_segment){.attributes = 0x82, .limit = 0xffff};
    state->segment[SEG_TR] = (struct hvm_segment){.attributes = 0x8b, .limit = 0xffff};
    state->gdt_limit = state->idt_limit = 0xffff;
}
