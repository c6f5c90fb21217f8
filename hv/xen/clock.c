/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clock of Xen's ABI: nanoseconds by the guest's TSC from zero, with constant factors, so that
 * a fork has nothing to rewrite; and the wall clock, by which a guest knows the date at which its
 * clock was zero.
 */
#include "calls.h"

#include <stddef.h>

#include <xen/xen.h>

#define NS_PER_SECOND UINT64_C(1000000000)
/* A year: what is longer is waited for in parts, as its TSC would not fit. */
#define WAIT_MAX (UINT64_C(1) << 55)

/* ns = (TSC shifted by `shift`) * mul / 2^32, with `mul` as large as it can be. */
static void factors(uint32_t *mul, int8_t *shift)
{
    uint64_t hz = tsc_per_second;
    *shift = 0;
    while (hz > 2 * NS_PER_SECOND) {
        hz >>= 1;
        (*shift)--;
    }
    while (hz <= NS_PER_SECOND) {
        hz <<= 1;
        (*shift)++;
    }
    /* Now 1 GHz < hz <= 2 GHz: what was shifted out is put back for the division. */
    uint64_t scaled = *shift >= 0 ? tsc_per_second << *shift : tsc_per_second >> -*shift;
    *mul = (uint32_t)((NS_PER_SECOND << 32) / scaled);
}

static uint64_t guest_tsc(struct vcpu *vcpu)
{
    return read_tsc() + hvm->get(&vcpu->hvm, HVM_FIELD_TSC_OFFSET);
}

uint64_t xen_now(struct vcpu *vcpu)
{
    uint32_t mul;
    int8_t shift;
    factors(&mul, &shift);
    uint64_t tsc = guest_tsc(vcpu);
    tsc = shift >= 0 ? tsc << shift : tsc >> -shift;
    return (uint64_t)((unsigned __int128)tsc * mul >> 32);
}

uint64_t xen_tsc_at(struct vcpu *vcpu, uint64_t ns)
{
    uint64_t now = xen_now(vcpu), wait = ns > now ? ns - now : 0;
    wait = wait < WAIT_MAX ? wait : WAIT_MAX;
    return read_tsc() + (wait != 0 ? ns_to_tsc(wait) + 1 : 0);
}

enum cleave_status xen_write_clock(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t info)
{
    struct vcpu_time_info time = {.version = 2};
    uint64_t done;
    factors(&time.tsc_to_system_mul, &time.tsc_shift);
    return space_write(ctx, vcpu->domain->space, gpa(info + offsetof(struct vcpu_info, time)),
                       &time, sizeof(time), &vcpu->wait, &done);
}

/* Odd while it is written. A vcpu that reads meanwhile, or a call that is repeated, finds another
 * number than before. */
enum cleave_status xen_write_wall_clock(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct space *space = vcpu->domain->space;
    uint64_t at = vcpu->domain->xen->shared_info, zero = wall_clock_ns() - xen_now(vcpu), done;
    uint32_t version = 0;
    struct {
        uint32_t sec, nsec, sec_high;
    } clock = {(uint32_t)(zero / NS_PER_SECOND), (uint32_t)(zero % NS_PER_SECOND),
               (uint32_t)(zero / NS_PER_SECOND >> 32)};
    const uint64_t version_at = at + offsetof(struct shared_info, wc_version);
    enum cleave_status status = space_read(ctx, space, gpa(version_at), &version, 4, &vcpu->wait);

    version |= 1;
    for (unsigned step = 0; step < 3 && status == CLEAVE_OK; step++) {
        bool number = step != 1;
        uint64_t to = number ? version_at : at + offsetof(struct shared_info, wc_sec);
        status = space_write(ctx, space, gpa(to), number ? (const void *)&version : &clock,
                             number ? sizeof(version) : sizeof(clock), &vcpu->wait, &done);
        version += step == 1;
    }
    return status;
}
