/* SPDX-License-Identifier: BSD-2-Clause */
/* Xen's ABI for stories: the call, and the few structures that most of them need. */
#ifndef GUEST_XEN_H
#define GUEST_XEN_H

#include "guest.h"

#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/xen.h>

#define CONSOLE_RING ((volatile struct xencons_interface *)UINT64_C(0xfefff000))

/* One hypercall. Its argument registers are clobbered, as Xen's public/arch-x86/xen-x86_64.h says.
 */
static inline int64_t xen_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c)
{
    int64_t result;
    if (guest_amd) {
        __asm__ volatile("vmmcall"
                         : "=a"(result), "+D"(a), "+S"(b), "+d"(c)
                         : "a"(number)
                         : "memory");
    } else {
        __asm__ volatile("vmcall"
                         : "=a"(result), "+D"(a), "+S"(b), "+d"(c)
                         : "a"(number)
                         : "memory");
    }
    return result;
}

static inline int64_t event_op(unsigned command, const void *argument)
{
    return xen_call(__HYPERVISOR_event_channel_op, command, (uint64_t)argument, 0);
}

static inline int64_t on_port(unsigned command, uint32_t port) { return event_op(command, &port); }

static inline int64_t vcpu_op(unsigned command, uint64_t vcpu, const void *argument)
{
    return xen_call(__HYPERVISOR_vcpu_op, command, vcpu, (uint64_t)argument);
}

/* Arms the one-shot timer of vcpu 0 for `ns` of the clock. */
static inline int64_t set_timer(uint64_t ns, uint32_t flags)
{
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = ns, .flags = flags};
    return vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer);
}

static inline int64_t place_shared_info(uint64_t at)
{
    struct xen_add_to_physmap add = {
        .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = at / PAGE};
    return xen_call(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uint64_t)&add, 0);
}

static inline int64_t place_vcpu_info(uint64_t vcpu, uint64_t at)
{
    struct vcpu_register_vcpu_info where = {.mfn = at / PAGE, .offset = (uint32_t)(at % PAGE)};
    return vcpu_op(VCPUOP_register_vcpu_info, vcpu, &where);
}

static inline int64_t set_param(uint32_t index, uint64_t value)
{
    struct xen_hvm_param param = {.domid = DOMID_SELF, .index = index, .value = value};
    return xen_call(__HYPERVISOR_hvm_op, HVMOP_set_param, (uint64_t)&param, 0);
}
#define CALLBACK_VECTOR(vector) (UINT64_C(2) << 56 | (vector))

/* Binds; the port, or what was refused. */
static inline int64_t bind_ipi(uint32_t vcpu)
{
    struct evtchn_bind_ipi bind = {.vcpu = vcpu};
    int64_t result = event_op(EVTCHNOP_bind_ipi, &bind);
    return result == 0 ? bind.port : result;
}

static inline int64_t bind_virq(uint32_t virq, uint32_t vcpu)
{
    struct evtchn_bind_virq bind = {.virq = virq, .vcpu = vcpu};
    int64_t result = event_op(EVTCHNOP_bind_virq, &bind);
    return result == 0 ? bind.port : result;
}

static inline int64_t poll_ports(uint32_t *port, uint32_t count, uint64_t until)
{
    struct sched_poll poll = {.nr_ports = count, .timeout = until};
    set_xen_guest_handle(poll.ports, port);
    return xen_call(__HYPERVISOR_sched_op, SCHEDOP_poll, (uint64_t)&poll, 0);
}

/* Nanoseconds by a vcpu_info's clock, and those of `tsc`. */
static inline uint64_t ns_at(const volatile struct vcpu_info *info, uint64_t tsc)
{
    const volatile struct vcpu_time_info *time = &info->time;
    uint64_t delta = tsc - time->tsc_timestamp;
    delta = time->tsc_shift >= 0 ? delta << time->tsc_shift : delta >> -time->tsc_shift;
    return time->system_time + (uint64_t)((unsigned __int128)delta * time->tsc_to_system_mul >> 32);
}

/* Shows page `page` of another domain at `at`, in the place of what was shown there. */
static inline void map_foreign(uint32_t domain, uint64_t page, uint64_t at)
{
    uint64_t from = page, to = at / PAGE;
    int error = 1;
    struct xen_remove_from_physmap remove = {.domid = DOMID_SELF, .gpfn = to};
    (void)xen_call(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap, (uint64_t)&remove, 0);
    struct xen_add_to_physmap_batch batch = {.domid = DOMID_SELF,
                                             .space = XENMAPSPACE_gmfn_foreign,
                                             .size = 1,
                                             .u.foreign_domid = (domid_t)domain};
    set_xen_guest_handle(batch.idxs, &from);
    set_xen_guest_handle(batch.gpfns, &to);
    set_xen_guest_handle(batch.errs, &error);
    CHECK_EQ(xen_call(__HYPERVISOR_memory_op, XENMEM_add_to_physmap_batch, (uint64_t)&batch, 0), 0);
    CHECK_EQ(error, 0);
}

#endif
