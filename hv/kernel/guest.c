/* SPDX-License-Identifier: BSD-2-Clause */
/* A vcpu's memory by its registers of the moment; see guest.h. */
#include "guest.h"

#include "guest_walk.h"

static enum cleave_status paging_of(struct mm_ctx *ctx, struct vcpu *vcpu,
                                    struct guest_paging *paging)
{
    uint64_t cr0, cr3, cr4, efer;
    unsigned cpl;
    bool code64;

    hvm->mode(&vcpu->hvm, &cr0, &cr3, &cr4, &efer, &cpl, &code64);
    return guest_paging_decode(ctx, cr0, cr3, cr4, efer, paging);
}

enum cleave_status guest_read(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear, void *to,
                              uint64_t size, const char *name)
{
    struct guest_paging paging;
    enum cleave_status status = paging_of(ctx, vcpu, &paging);
    if (status == CLEAVE_OK) {
        status =
            guest_copy_in(ctx, vcpu->domain->space, &paging, linear, to, size, name, &vcpu->wait);
    }
    return status;
}

enum cleave_status guest_write(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear,
                               const void *from, uint64_t size, const char *name)
{
    struct guest_paging paging;
    enum cleave_status status = paging_of(ctx, vcpu, &paging);
    if (status == CLEAVE_OK) {
        status = guest_copy_out(ctx, vcpu->domain->space, &paging, linear, from, size, name,
                                &vcpu->wait);
    }
    return status;
}
