/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CPUID as guests see it: of each leaf that is listed here the bits that are, everything else zero
 * (SDM 2A CPUID, APM 3 appendix E). What is listed works in a guest with nothing but what the world
 * switches do.
 */
#include "switch.h"

#define BIT(n) (1u << (n))
#define BITS(low, high) ((UINT32_MAX >> (31 - (high))) & (UINT32_MAX << (low)))

#define CPUID_LAST 0xdu
#define CPUID_LAST_EXTENDED 0x80000008u

/* 1:ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX,
 * F16C, RDRAND. Not: MONITOR, VMX, PDCM, PCID, TSC deadline. */
#define LEAF1_ECX                                                                                  \
    (BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) |        \
     BIT(25) | BIT(26) | BITS(28, 30))
#define LEAF1_ECX_X2APIC BIT(21)
#define LEAF1_ECX_OSXSAVE BIT(27)
#define LEAF1_ECX_HYPERVISOR BIT(31)
/* 1:EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, PSE36, CLFLUSH, MMX,
 * FXSR, SSE, SSE2; the kernel's MTRRs; HTT for more than one CPU. Not: MCE, MCA, ACPI. */
#define LEAF1_EDX                                                                                  \
    (BITS(0, 6) | BIT(8) | BIT(9) | BIT(11) | BIT(13) | BITS(15, 17) | BIT(19) | BITS(23, 26))
#define LEAF1_EDX_MTRR BIT(12)
#define LEAF1_EDX_HTT BIT(28)

/* 7.0:EBX: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, AVX-512 F and DQ, RDSEED, ADX, SMAP, IFMA,
 * CLFLUSHOPT, CLWB, AVX-512 CD, SHA, AVX-512 BW and VL; the kernel's TSC_ADJUST. Not: INVPCID, RTM,
 * MPX. */
#define LEAF7_EBX                                                                                  \
    (BIT(0) | BIT(3) | BIT(5) | BITS(7, 9) | BITS(16, 21) | BIT(23) | BIT(24) | BITS(28, 31))
#define LEAF7_EBX_TSC_ADJUST BIT(1)
#define LEAF7_EBX_AVX512 (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
/* 7.0:ECX: VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID. Not:
 * WAITPKG, LA57. */
#define LEAF7_ECX (BITS(1, 3) | BIT(6) | BITS(8, 12) | BIT(14) | BIT(22))
#define LEAF7_ECX_AVX512 (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
#define LEAF7_ECX_PKU BIT(3)
#define LEAF7_ECX_OSPKE BIT(4)
#define LEAF7_EDX (BIT(4) | BIT(10)) /* fast short REP MOV, VERW clears buffers */

/* 80000001:ECX: LAHF, ABM, SSE4A, misaligned SSE, PREFETCHW. Not: SVM, topology. */
#define LEAF_EXTENDED1_ECX (BIT(0) | BITS(5, 8))
#define LEAF_EXTENDED1_ECX_CMP_LEGACY BIT(1) /* those of leaf 1 are cores, not threads */
/* 80000001:EDX: SYSCALL, NX, MMX extensions, 1 GiB pages, RDTSCP, long mode; with the common bits.
 */
#define LEAF_EXTENDED1_EDX                                                                         \
    ((LEAF1_EDX & (BITS(0, 17) | BITS(23, 24)) & ~BIT(11)) | BIT(11) | BIT(20) | BIT(22) |         \
     BIT(26) | BIT(27) | BIT(29))
/* Invariant TSC, also where the CPU does not say so: the hypervisor keeps all time by the TSC, and
 * has looked that the CPUs agree. Without, Linux gives up its own TSC clock with several CPUs. */
#define LEAF_EXTENDED7_EDX BIT(8)
#define LEAF_EXTENDED8_EBX (BIT(0) | BIT(2)) /* CLZERO, XRSTOR of error pointers */

#define CR4_PKE (UINT64_C(1) << 22)
#define XCR0_AVX (UINT64_C(1) << 2)
#define XCR0_AVX512 (UINT64_C(7) << 5)
#define XCR0_PKRU (UINT64_C(1) << 9)
#define LEAF1_ECX_AVX (BIT(12) | BIT(28) | BIT(29)) /* FMA, AVX, F16C */

/* Bits of an APIC id: one of threads, of which each core has one, and the cores' (SDM 3A 9.9). */
static uint32_t core_bits(const struct hvm_vcpu *vcpu)
{
    return vcpu->cpus > 1 ? 32 - (uint32_t)__builtin_clz(vcpu->cpus - 1) : 0;
}
static uint32_t id_bits(const struct hvm_vcpu *vcpu) { return 1 + core_bits(vcpu); }

static void leaf_1(const struct hvm_vcpu *vcpu, uint64_t cr4, struct cpuid *out)
{
    out->ebx = (out->ebx & 0xff00u) | vcpu->apic_id << 24 | /* CLFLUSH size stays */
               1u << id_bits(vcpu) << 16;
    out->ecx &= LEAF1_ECX & (xsave_components & XCR0_AVX ? UINT32_MAX : ~LEAF1_ECX_AVX);
    out->ecx |= LEAF1_ECX_X2APIC | LEAF1_ECX_HYPERVISOR;
    out->ecx |= cr4 & CR4_OSXSAVE ? LEAF1_ECX_OSXSAVE : 0;
    out->edx &= LEAF1_EDX;
    out->edx |= LEAF1_EDX_MTRR | (vcpu->cpus > 1 ? LEAF1_EDX_HTT : 0);
}

static void leaf_7(uint32_t subleaf, uint64_t cr4, struct cpuid *out)
{
    if (subleaf != 0) {
        *out = (struct cpuid){0};
        return;
    }
    out->eax = 0;
    out->ebx = (out->ebx & LEAF7_EBX) | LEAF7_EBX_TSC_ADJUST;
    out->ecx &= LEAF7_ECX;
    out->edx &= LEAF7_EDX;
    if (!(xsave_components & XCR0_AVX512)) {
        out->ebx &= ~LEAF7_EBX_AVX512;
        out->ecx &= ~LEAF7_ECX_AVX512;
    }
    if (!(xsave_components & XCR0_PKRU)) {
        out->ecx &= ~LEAF7_ECX_PKU;
    }
    out->ecx |= cr4 & CR4_PKE && out->ecx & LEAF7_ECX_PKU ? LEAF7_ECX_OSPKE : 0;
}

static void leaf_4(const struct hvm_vcpu *vcpu, struct cpuid *out)
{
    out->eax &= BITS(0, 13); /* shared with no other CPU */
    if ((out->eax & 0x1f) != 0) {
        out->eax |= ((1u << core_bits(vcpu)) - 1) << 26;
    }
}

/* Topology: one thread to a core, one package. */
static void leaf_b(const struct hvm_vcpu *vcpu, uint32_t subleaf, struct cpuid *out)
{
    *out = (struct cpuid){.ecx = subleaf & 0xff, .edx = vcpu->apic_id};
    if (subleaf == 0) {
        out->eax = 1; /* APIC id bits below the core's */
        out->ebx = 1;
        out->ecx |= 1u << 8;
    } else if (subleaf == 1) {
        out->eax = id_bits(vcpu); /* below the package's */
        out->ebx = vcpu->cpus;
        out->ecx |= 2u << 8;
    }
}

static void leaf_d(const struct hvm_vcpu *vcpu, uint32_t subleaf, struct cpuid *out)
{
    if (subleaf == 0) {
        *out = (struct cpuid){.eax = (uint32_t)xsave_components,
                              .ebx = xsave_size(switch_xcr0(vcpu)),
                              .ecx = xsave_size(xsave_components),
                              .edx = (uint32_t)(xsave_components >> 32)};
    } else if (subleaf == 1) {
        *out = (struct cpuid){.eax = out->eax & (BIT(0) | BIT(2))}; /* XSAVEOPT, XGETBV of 1 */
    } else if (subleaf >= 63 || !(xsave_components & UINT64_C(1) << subleaf)) {
        *out = (struct cpuid){0};
    }
}

static void leaf_extended(const struct hvm_vcpu *vcpu, uint32_t leaf, struct cpuid *out)
{
    bool amd = hvm == &svm_ops;
    switch (leaf) {
    case 0x80000000:
        out->eax = out->eax < CPUID_LAST_EXTENDED ? out->eax : CPUID_LAST_EXTENDED;
        break;
    case 0x80000001:
        out->ecx &= LEAF_EXTENDED1_ECX;
        out->edx &= LEAF_EXTENDED1_EDX;
        if (amd) {
            out->ecx |= vcpu->cpus > 1 ? LEAF_EXTENDED1_ECX_CMP_LEGACY : 0;
            out->edx |= LEAF1_EDX_MTRR;
        }
        break;
    case 0x80000007:
        *out = (struct cpuid){.edx = LEAF_EXTENDED7_EDX};
        break;
    case 0x80000008: {
        uint32_t physical = out->eax & 0xff;
        physical = physical < GUEST_BITS ? physical : GUEST_BITS;
        *out = (struct cpuid){.eax = physical | 48u << 8, .ebx = out->ebx & LEAF_EXTENDED8_EBX};
        out->ecx = amd ? (vcpu->cpus - 1) | id_bits(vcpu) << 12 : 0;
        break;
    }
    default: /* 80000002 to 6: name and caches, as they are */
        break;
    }
}

void hvm_guest_cpuid(struct hvm_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, struct cpuid *out)
{
    bool extended = leaf >= 0x80000000;
    uint32_t last = cpuid(leaf & 0x80000000, 0).eax;
    *out = (struct cpuid){0};
    if ((leaf > CPUID_LAST && !extended) || leaf > CPUID_LAST_EXTENDED || leaf > last) {
        return;
    }
    *out = cpuid(leaf, subleaf);
    if (extended) {
        leaf_extended(vcpu, leaf, out);
        return;
    }
    uint64_t cr4 = hvm->get(vcpu, HVM_FIELD_CR4);
    switch (leaf) {
    case 0:
        out->eax = out->eax < CPUID_LAST ? out->eax : CPUID_LAST;
        break;
    case 1:
        leaf_1(vcpu, cr4, out);
        break;
    case 2:
        break; /* caches, as they are */
    case 4:
        leaf_4(vcpu, out);
        break;
    case 6:
        *out = (struct cpuid){.eax = BIT(2)}; /* the timer never stops */
        break;
    case 7:
        leaf_7(subleaf, cr4, out);
        break;
    case 0xb:
        leaf_b(vcpu, subleaf, out);
        break;
    case 0xd:
        leaf_d(vcpu, subleaf, out);
        break;
    default:
        *out = (struct cpuid){0};
        break;
    }
}
