/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records of Xen's HVM context (public/arch-x86/hvm/save.h), each a part of one vcpu's state, to
 * and from the hypervisor's own terms. Nothing here touches a domain.
 */
#ifndef XEN_HVM_RECORDS_H
#define XEN_HVM_RECORDS_H

#include <stdint.h>

#include <xen/hvm/save.h>

#include "hvm.h"
#include "lapic.h"
#include "mtrr.h"

/* A vcpu that stands still, or what one is to become. */
struct context_vcpu {
    bool on;                /* it has a state: it was started, or a CPU record says so */
    uint32_t seen;          /* bits by type: records that were decoded into it */
    uint64_t tsc;           /* its TSC now */
    uint64_t adjust;        /* and its IA32_TSC_ADJUST */
    uint8_t *xsave;         /* an XSAVE area, a page */
    struct hvm_state state; /* but for `tsc_offset` */
    struct lapic lapic;
    struct mtrr mtrr;
};

#define CONTEXT_HAS(vcpu, type) (((vcpu)->seen >> HVM_SAVE_CODE(type) & 1) != 0)

/* Bytes of the largest record. */
#define CONTEXT_RECORD_MAX (offsetof(struct hvm_hw_cpu_xsave, save_area) + PAGE_SIZE)
union context_record {
    HVM_SAVE_TYPE(CPU) cpu;
    HVM_SAVE_TYPE(LAPIC) lapic;
    HVM_SAVE_TYPE(LAPIC_REGS) lapic_regs;
    HVM_SAVE_TYPE(MTRR) mtrr;
    HVM_SAVE_TYPE(TSC_ADJUST) tsc_adjust;
    struct hvm_hw_cpu_xsave xsave;
    struct hvm_msr msr;
    uint8_t bytes[CONTEXT_RECORD_MAX];
};

/* The type of a vcpu's `i`th record, in the order in which they stand; 0 behind the last. */
uint16_t context_type(unsigned i);
/* Is it the type of one of them? */
bool context_type_known(uint32_t type);
/* Its bytes; 0 where the vcpu has no such record. */
uint32_t context_length(const struct context_vcpu *vcpu, uint16_t type);
/* The record of a vcpu that has one. */
void context_encode(const struct context_vcpu *vcpu, uint16_t type, union context_record *record);
/* Takes the record of `length` bytes over. False: its type, length or what it says is wrong, or it
 * is the second of its type; then the vcpu is of no use any more. */
bool context_decode(struct context_vcpu *vcpu, uint16_t type, const union context_record *record,
                    uint32_t length);
/* May the vcpu become that? */
bool context_legal(const struct context_vcpu *vcpu);

#endif
