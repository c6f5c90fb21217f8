/* SPDX-License-Identifier: BSD-2-Clause */
/* Identity pages; see identity.h. They are written by the domain's own vcpus: the page is copied as
 * if the guest had written it. */
#include "identity.h"

#include "port.h"
#include "sched.h"

#define DATA_MAX PAGE_SIZE

static void new_generation(struct domain *domain)
{
    uint64_t random[2] = {port_random(), port_random()};
    __builtin_memcpy(domain->identity.generation, random, sizeof(random));
}

void identity_make(struct domain *domain)
{
    domain->identity =
        (struct cleave_identity){.revision = CLEAVE_IDENTITY_REVISION, .domain = domain->id};
    __builtin_memcpy(domain->identity.magic, CLEAVE_IDENTITY_MAGIC, 8);
    new_generation(domain);
    __atomic_store_n(&domain->untold, 1, __ATOMIC_RELEASE);
}

void identity_renew(struct domain *domain)
{
    /* Guests that have neither asked for Xen's ABI nor been given data do not look. */
    if (domain->has_window && (domain->xen != NULL || domain->data != NULL)) {
        new_generation(domain);
        __atomic_store_n(&domain->untold, 1, __ATOMIC_RELEASE);
    }
}

enum cleave_status identity_fork(struct mm_ctx *ctx, struct domain *child, uint32_t index,
                                 uint32_t count, const void *data, uint32_t size)
{
    identity_make(child);
    child->untold = 0;
    child->identity.index = index;
    child->identity.count = count;
    child->identity.data_size = size;
    child->identity.forked_at_ns = tsc_to_ns(child->created + child->tsc_offset);
    if (size != 0) {
        pfn_t frame;
        enum cleave_status status = object_alloc(ctx, &child->space->payer, &frame);
        if (status != CLEAVE_OK) {
            return status;
        }
        child->data = frame_address(frame);
        port_copy_pages(child->data, data, 1);
    }
    identity_renew(child);
    return CLEAVE_OK;
}

void identity_free(struct mm_ctx *ctx, struct domain *domain)
{
    if (domain->data != NULL) {
        object_free(ctx, object_frame(domain->data));
        domain->data = NULL;
    }
}

enum cleave_status identity_attend(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct domain *domain = vcpu->domain;
    enum cleave_status status = CLEAVE_OK;
    uint64_t done;

    if (!__atomic_load_n(&domain->untold, __ATOMIC_ACQUIRE)) {
        return CLEAVE_OK;
    }
    if (domain->data != NULL) {
        status = space_write(ctx, domain->space, gpa(CLEAVE_IDENTITY_DATA_GPA), domain->data,
                             domain->identity.data_size, &vcpu->wait, &done);
    }
    if (status == CLEAVE_OK) {
        status = space_write(ctx, domain->space, gpa(CLEAVE_IDENTITY_GPA), &domain->identity,
                             sizeof(domain->identity), &vcpu->wait, &done);
    }
    /* Each vcpu that comes here before it is done stores the same. A guest that has taken the pages
     * away is not told. */
    if (!vcpu_repeats(status)) {
        __atomic_store_n(&domain->untold, 0, __ATOMIC_RELEASE);
    }
    return status;
}
