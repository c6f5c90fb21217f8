/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks a guest's page tables (SDM 3A 4.5, APM 2 5.3) and copies; see guest.h. */
#include "guest.h"

#define GUEST_PRESENT UINT64_C(1)
#define GUEST_WRITE UINT64_C(2)
#define GUEST_HUGE UINT64_C(0x80)
#define GUEST_ADDRESS UINT64_C(0x000ffffffffff000)

struct paging {
    bool on;
    uint64_t root;
};

static enum cleave_status paging_of(struct mm_ctx *ctx, struct vcpu *vcpu, struct paging *paging)
{
    uint64_t cr0, cr3, cr4, efer;
    unsigned cpl;
    bool code64;

    hvm->mode(&vcpu->hvm, &cr0, &cr3, &cr4, &efer, &cpl, &code64);
    paging->on = (cr0 & CR0_PG) != 0;
    paging->root = cr3 & GUEST_ADDRESS;
    if (paging->on && (!(efer & EFER_LMA) || (cr4 & CR4_LA57))) {
        return mm_fail(ctx, CLEAVE_INVALID, "paging", cr4, 1, 0);
    }
    return CLEAVE_OK;
}

/* Guest-physical address of `linear`, and how many bytes from there lie in the same page. */
static enum cleave_status translate(struct mm_ctx *ctx, struct vcpu *vcpu,
                                    const struct paging *paging, uint64_t linear, bool write,
                                    const char *name, uint64_t *physical, uint64_t *room)
{
    uint64_t table = paging->root, entry = 0;
    unsigned shift = 39;

    *physical = linear;
    *room = PAGE_SIZE - linear % PAGE_SIZE;
    if (!paging->on) {
        return linear >> 32 == 0 ? CLEAVE_OK : mm_fail(ctx, CLEAVE_FAULT, name, linear, 1, 0);
    }
    if ((uint64_t)((int64_t)(linear << 16) >> 16) != linear) {
        return mm_fail(ctx, CLEAVE_FAULT, name, linear, 1, 0);
    }
    for (;; shift -= 9) {
        uint64_t slot = table + (linear >> shift & 0x1ff) * 8;
        enum cleave_status status =
            space_read(ctx, vcpu->domain->space, gpa(slot), &entry, 8, &vcpu->wait);
        if (status == CLEAVE_WAIT) {
            return status;
        }
        if (status != CLEAVE_OK || !(entry & GUEST_PRESENT) || (write && !(entry & GUEST_WRITE))) {
            return mm_fail(ctx, CLEAVE_FAULT, name, linear, 1, 0);
        }
        if (shift == 12 || (shift < 39 && (entry & GUEST_HUGE))) {
            break;
        }
        table = entry & GUEST_ADDRESS;
    }
    uint64_t inside = (UINT64_C(1) << shift) - 1;
    *physical = (entry & GUEST_ADDRESS & ~inside) | (linear & inside);
    return CLEAVE_OK;
}

static enum cleave_status copy(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear,
                               unsigned char *buffer, uint64_t size, bool write, const char *name)
{
    struct paging paging;
    enum cleave_status status = paging_of(ctx, vcpu, &paging);

    if (status == CLEAVE_OK && linear + size < linear) {
        status = mm_fail(ctx, CLEAVE_WRAP, name, linear, 0, UINT64_MAX - size);
    }
    while (status == CLEAVE_OK && size > 0) {
        uint64_t physical, room, done;
        status = translate(ctx, vcpu, &paging, linear, write, name, &physical, &room);
        room = room < size ? room : size;
        if (status == CLEAVE_OK && write) {
            status = space_write(ctx, vcpu->domain->space, gpa(physical), buffer, room, &vcpu->wait,
                                 &done);
        } else if (status == CLEAVE_OK) {
            status = space_read(ctx, vcpu->domain->space, gpa(physical), buffer, room, &vcpu->wait);
        }
        linear += room;
        buffer += room;
        size -= room;
    }
    return status;
}

enum cleave_status guest_read(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear, void *to,
                              uint64_t size, const char *name)
{
    return copy(ctx, vcpu, linear, to, size, false, name);
}

enum cleave_status guest_write(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear,
                               const void *from, uint64_t size, const char *name)
{
    return copy(ctx, vcpu, linear, (unsigned char *)(uintptr_t)from, size, true, name);
}
