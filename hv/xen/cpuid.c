/* SPDX-License-Identifier: BSD-2-Clause */
/* What CPUID tells of Xen's ABI (Xen's public/arch-x86/cpuid.h), and the hypercall page
 * that older kernels ask for. */
#include "calls.h"

#include <xen/arch-x86/cpuid.h>
#include <xen/xen.h>

#define ENTRY_SIZE 32u

void xen_cpuid(const struct vcpu *vcpu, uint32_t leaf, struct cpuid *out)
{
    *out = (struct cpuid){0, 0, 0, 0};
    switch (leaf) {
    case 0x40000000:
        *out = (struct cpuid){0x40000004, XEN_CPUID_SIGNATURE_EBX, XEN_CPUID_SIGNATURE_ECX,
                              XEN_CPUID_SIGNATURE_EDX};
        break;
    case 0x40000001:
        out->eax = 4u << 16 | 17u;
        break;
    case 0x40000002:
        out->eax = 1; /* one hypercall page */
        out->ebx = XEN_HYPERCALL_PAGE_MSR;
        break;
    case 0x40000004:
        out->eax = XEN_HVM_CPUID_VCPU_ID_PRESENT | XEN_HVM_CPUID_DOMID_PRESENT;
        out->ebx = vcpu->number;
        out->ecx = xen_domid(vcpu->domain);
        break;
    default:
        break;
    }
}

/* Each entry of the page loads its number and calls: mov $number, %eax; vmmcall or vmcall; ret. */
enum cleave_status xen_hypercall_page(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t value)
{
    const uint8_t last = hvm == &svm_ops ? 0xd9 : 0xc1;
    enum cleave_status status = CLEAVE_OK;
    uint64_t done;

    if (value % PAGE_SIZE != 0 || value >> GUEST_BITS != 0) {
        return mm_fail(ctx, CLEAVE_INVALID, "value", value, 1, 0);
    }
    for (uint8_t i = 0; i < PAGE_SIZE / ENTRY_SIZE && status == CLEAVE_OK; i++) {
        uint8_t entry[ENTRY_SIZE] = {0xb8, i, 0, 0, 0, 0x0f, 0x01, last, 0xc3};
        status = space_write(ctx, vcpu->domain->space, gpa(value + i * ENTRY_SIZE), entry,
                             sizeof(entry), &vcpu->wait, &done);
    }
    return status;
}
