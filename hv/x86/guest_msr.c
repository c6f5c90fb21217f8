/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MSRs that guests may use and that do not go straight to the CPU: a closed list, everything else
 * is #GP (SDM 4, APM 2 appendix A). And XCR0, which is written the same way.
 */
#include "switch.h"

#define MSR_TSC 0x10u
#define MSR_PLATFORM_ID 0x17u
#define MSR_UCODE_REVISION 0x8bu
#define MSR_MISC_ENABLE 0x1a0u
#define MSR_DEBUGCTL 0x1d9u
#define MSR_SYSCFG 0xc0010010u
#define MSR_HWCR 0xc0010015u
#define MSR_NB_CFG 0xc001001fu
#define MSR_INT_PENDING 0xc0010055u
#define MSR_DE_CFG 0xc0011029u

#define MISC_ENABLE_FAST_STRINGS (UINT64_C(1) << 0)
#define HWCR_TSC_AT_P0 (UINT64_C(1) << 24)
#define DE_CFG_LFENCE_SERIALIZES (UINT64_C(1) << 1)

/* Those that only answer: writes are taken and change nothing. */
static const struct {
    uint32_t msr;
    uint64_t value;
} constant_msrs[] = {
    {MSR_PLATFORM_ID, 0}, {MSR_UCODE_REVISION, 0}, {MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRINGS},
    {MSR_DEBUGCTL, 0},    {MSR_SYSCFG, 0},         {MSR_HWCR, HWCR_TSC_AT_P0},
    {MSR_NB_CFG, 0},      {MSR_INT_PENDING, 0},    {MSR_DE_CFG, DE_CFG_LFENCE_SERIALIZES},
};

static bool constant_msr(uint32_t msr, uint64_t *value)
{
    for (unsigned i = 0; i < sizeof(constant_msrs) / sizeof(constant_msrs[0]); i++) {
        if (constant_msrs[i].msr == msr) {
            *value = constant_msrs[i].value;
            return true;
        }
    }
    return false;
}

static bool has_tsc_aux(void) { return (cpuid(0x80000001, 0).edx & 1u << 27) != 0; }

bool hvm_guest_rdmsr(struct hvm_vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    switch (msr) {
    case MSR_TSC:
        *value = read_tsc() + hvm->get(vcpu, HVM_FIELD_TSC_OFFSET);
        return true;
    case MSR_EFER:
        *value = hvm->get(vcpu, HVM_FIELD_EFER);
        return true;
    case MSR_PAT:
        *value = hvm->get(vcpu, HVM_FIELD_PAT);
        return true;
    case MSR_TSC_AUX:
        *value = vcpu->tsc_aux;
        return has_tsc_aux();
    default:
        return constant_msr(msr, value);
    }
}

static bool write_efer(struct hvm_vcpu *vcpu, uint64_t value)
{
    uint64_t cr0, cr3, cr4, efer;
    unsigned cpl;
    bool code64;
    hvm->mode(vcpu, &cr0, &cr3, &cr4, &efer, &cpl, &code64);
    if (value & ~EFER_GUEST || (cr0 & CR0_PG && (value ^ efer) & EFER_LME)) {
        return false;
    }
    hvm->set(vcpu, HVM_FIELD_EFER, (value & ~EFER_LMA) | (efer & EFER_LMA));
    /* SCE and NXE are in what is cached of the guest's page tables. */
    vcpu->flush = 1;
    return true;
}

static bool write_pat(struct hvm_vcpu *vcpu, uint64_t value)
{
    if (!switch_pat_legal(value)) {
        return false;
    }
    hvm->set(vcpu, HVM_FIELD_PAT, value);
    vcpu->flush = 1;
    return true;
}

bool hvm_guest_wrmsr(struct hvm_vcpu *vcpu, uint32_t msr, uint64_t value)
{
    uint64_t ignored;
    switch (msr) {
    case MSR_TSC:
        hvm->set(vcpu, HVM_FIELD_TSC_OFFSET, value - read_tsc());
        return true;
    case MSR_EFER:
        return write_efer(vcpu, value);
    case MSR_PAT:
        return write_pat(vcpu, value);
    case MSR_TSC_AUX:
        if (!has_tsc_aux() || value > UINT32_MAX) {
            return false;
        }
        switch_set_tsc_aux(vcpu, value);
        return true;
    default:
        return constant_msr(msr, &ignored);
    }
}

bool hvm_guest_xsetbv(struct hvm_vcpu *vcpu, uint32_t index, uint64_t value)
{
    uint64_t cr0, cr3, cr4, efer;
    unsigned cpl;
    bool code64;
    hvm->mode(vcpu, &cr0, &cr3, &cr4, &efer, &cpl, &code64);
    if (cpl != 0 || index != 0 || !hvm_xcr0_legal(value)) {
        return false;
    }
    switch_set_xcr0(vcpu, value);
    return true;
}
