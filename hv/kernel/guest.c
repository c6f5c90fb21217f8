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

/* Where a byte of the guest's is. A call names the same page again and again: while it is
 * performed, the last walk stands for the next, as a TLB's entry would. */
static enum cleave_status locate(struct mm_ctx *ctx, struct vcpu *vcpu, struct space_reader *reader,
                                 uint64_t linear, bool write, const char *name, gpa_t *at)
{
    uint64_t offset = linear % PAGE_SIZE;
    struct guest_paging paging;
    if (vcpu->walked.known && vcpu->walked.page == linear - offset &&
        (vcpu->walked.writable || !write)) {
        *at = gpa(vcpu->walked.at.v + offset);
        return CLEAVE_OK;
    }
    enum cleave_status status = paging_of(ctx, vcpu, &paging);
    bool writable = true; /* what is read is most often written next: results */
    if (status == CLEAVE_OK) {
        status = guest_translate(ctx, reader, &paging, linear, true, name, &vcpu->wait, at);
    }
    if (status == CLEAVE_FAULT && !write) {
        writable = false;
        status = guest_translate(ctx, reader, &paging, linear, false, name, &vcpu->wait, at);
    }
    if (status == CLEAVE_OK) {
        vcpu->walked.known = true;
        vcpu->walked.writable = writable;
        vcpu->walked.page = linear - offset;
        vcpu->walked.at = gpa(at->v - offset);
    }
    return status;
}

void guest_forget_walk(struct vcpu *vcpu) { vcpu->walked.known = false; }

static bool in_one_page(uint64_t linear, uint64_t size)
{
    return size - 1 < PAGE_SIZE - linear % PAGE_SIZE && linear + size > linear;
}

enum cleave_status guest_read(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear, void *to,
                              uint64_t size, const char *name)
{
    struct guest_paging paging;
    gpa_t at;
    if (in_one_page(linear, size)) {
        struct space_reader reader = {.space = vcpu->domain->space};
        enum cleave_status status = locate(ctx, vcpu, &reader, linear, false, name, &at);
        if (status == CLEAVE_OK) {
            status = space_reader_read(ctx, &reader, at, to, size, &vcpu->wait);
        }
        space_reader_end(ctx, &reader);
        return status;
    }
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
    uint64_t written;
    gpa_t at;
    if (in_one_page(linear, size)) {
        struct space_reader reader = {.space = vcpu->domain->space};
        enum cleave_status status = locate(ctx, vcpu, &reader, linear, true, name, &at);
        space_reader_end(ctx, &reader);
        return status == CLEAVE_OK
                   ? space_write(ctx, vcpu->domain->space, at, from, size, &vcpu->wait, &written)
                   : status;
    }
    enum cleave_status status = paging_of(ctx, vcpu, &paging);
    if (status == CLEAVE_OK) {
        status = guest_copy_out(ctx, vcpu->domain->space, &paging, linear, from, size, name,
                                &vcpu->wait);
    }
    return status;
}
