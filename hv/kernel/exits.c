/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a vcpu and handles what makes it leave the guest. */
#include "calls.h"
#include "guest_clock.h"
#include "hypercall.h"
#include "sched.h"
#include "stat.h"

/* --- What a guest may ask --------------------------------------------------------------------- */

static void inject_fault(struct vcpu *vcpu)
{
    hvm->inject(&vcpu->hvm, HVM_EVENT_EXCEPTION(EXCEPTION_GP) | HVM_EVENT_ERROR, 0);
}

/* An access that is refused reaches the guest as #GP, and CLEAVE_OP_ERROR tells it where. */
static void refuse_access(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_exit *exit,
                          enum cleave_status status)
{
    (void)ctx;
    vcpu->error = (struct cleave_error){
        .status = status, .operation = UINT32_MAX, .value = exit->gpa, .low = 1, .argument = "gpa"};
    inject_fault(vcpu);
}

static void nested_fault(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_exit *exit)
{
    uint64_t began = read_tsc();
    sched_expect(vcpu);
    enum cleave_status status = space_fault(ctx, vcpu->domain->space, gpa(exit->gpa),
                                            (enum access)exit->access, &vcpu->wait);
    if (status == CLEAVE_OK) {
        stat_fault(read_tsc() - began);
    } else if (status == CLEAVE_WAIT) {
        vcpu->sleep = SLEEP_CORE;
    } else if (status == CLEAVE_QUOTA) {
        vcpu->sleep = SLEEP_QUOTA; /* until its domain is destroyed, reset or given more */
    } else if (status == CLEAVE_DYING || status == CLEAVE_FROZEN) {
        this_cpu()->resched = 1;
    } else {
        refuse_access(ctx, vcpu, exit, status);
    }
}

static bool read_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    if (lapic_has(msr)) {
        return lapic_rdmsr(vcpu, msr, value);
    }
    if (mtrr_has(msr)) {
        *value = mtrr_read(&vcpu->mtrr, msr);
        return true;
    }
    if (msr == MSR_TSC_ADJUST) {
        *value = clock_adjust(vcpu);
        return true;
    }
    return hvm_guest_rdmsr(&vcpu->hvm, msr, value);
}

static bool write_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    if (lapic_has(msr)) {
        return lapic_wrmsr(vcpu, msr, value);
    }
    if (msr == MSR_TSC_ADJUST) {
        clock_set_adjust(vcpu, value);
        return true;
    }
    return mtrr_has(msr) ? mtrr_write(&vcpu->mtrr, msr, value)
                         : hvm_guest_wrmsr(&vcpu->hvm, msr, value);
}

/* The hypercall page is written into the guest: as a store of its own, this may wait. */
static void write_hypercall_page(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t value,
                                 const struct hvm_exit *exit)
{
    sched_expect(vcpu);
    enum cleave_status status = xen_hypercall_page(ctx, vcpu, value);
    if (status == CLEAVE_WAIT) {
        vcpu->sleep = SLEEP_CORE;
    } else if (status == CLEAVE_QUOTA) {
        vcpu->sleep = SLEEP_QUOTA;
    } else if (status == CLEAVE_OK) {
        hvm->skip(&vcpu->hvm, exit);
    } else if (status != CLEAVE_AGAIN) {
        inject_fault(vcpu);
    }
}

static void msr_access(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_exit *exit)
{
    struct hvm_registers *regs = &vcpu->hvm.regs;
    uint32_t msr = (uint32_t)regs->rcx;
    uint64_t value = (regs->rdx << 32) | (uint32_t)regs->rax;
    bool done;

    if (exit->kind == HVM_EXIT_RDMSR) {
        done = read_msr(vcpu, msr, &value);
        if (done) {
            regs->rax = (uint32_t)value;
            regs->rdx = value >> 32;
        }
    } else if (msr == XEN_HYPERCALL_PAGE_MSR) {
        write_hypercall_page(ctx, vcpu, value, exit);
        return;
    } else {
        done = write_msr(vcpu, msr, value);
    }
    if (done) {
        hvm->skip(&vcpu->hvm, exit);
    } else {
        inject_fault(vcpu);
    }
}

/* There are no devices: reads give all ones (port 0x42, on which early timers calibrate, zero). */
static void port_access(struct vcpu *vcpu, const struct hvm_exit *exit)
{
    struct hvm_registers *regs = &vcpu->hvm.regs;
    if (exit->io_string) {
        inject_fault(vcpu);
        return;
    }
    if (exit->io_in) {
        uint64_t ones = exit->port == 0x42 ? 0 : UINT64_MAX;
        uint64_t mask = exit->size == 4 ? UINT64_MAX : (UINT64_C(1) << (8 * exit->size)) - 1;
        uint64_t value = exit->size == 4 ? (uint32_t)ones : ones;
        regs->rax = (regs->rax & ~mask) | (value & mask);
    }
    hvm->skip(&vcpu->hvm, exit);
}

/* CPUID leaf 0x40000100 names this hypervisor: revision of its ABI in EAX. */
static void cpuid_exit(struct vcpu *vcpu, const struct hvm_exit *exit)
{
    struct hvm_registers *regs = &vcpu->hvm.regs;
    uint32_t leaf = (uint32_t)regs->rax;
    struct cpuid r = {0, 0, 0, 0};

    if (leaf == 0x40000100) {
        r = (struct cpuid){CLEAVE_ABI_REVISION, 0x61656c43, 0x4d566576,
                           0x0000004d}; /* "CleaveVMM" */
    } else if (leaf >> 8 == 0x400000) {
        xen_cpuid(vcpu, leaf, &r);
    } else if (leaf >> 28 != 4) {
        hvm_guest_cpuid(&vcpu->hvm, leaf, (uint32_t)regs->rcx, &r);
    }
    regs->rax = r.eax;
    regs->rbx = r.ebx;
    regs->rcx = r.ecx;
    regs->rdx = r.edx;
    hvm->skip(&vcpu->hvm, exit);
}

/* --- Ends ------------------------------------------------------------------------------------- */

static void end_with(struct vcpu *vcpu, enum cleave_reason reason, uint64_t code)
{
    vcpu->ending = (uint8_t)reason;
    vcpu->end_code = (uint32_t)code;
    vcpu->sleep = SLEEP_NONE;
}

static void try_end(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct domain *domain = vcpu->domain;
    if (klock_try(&domain->busy)) {
        domain_end(ctx, domain, vcpu, vcpu->ending, vcpu->end_code);
        klock_release(&domain->busy);
    } else {
        this_cpu()->resched = 1;
    }
}

/* Sleeps or goes on at once: vcpu_attention() finds out. */
static void halt(struct vcpu *vcpu, const struct hvm_exit *exit)
{
    hvm->skip(&vcpu->hvm, exit);
    vcpu->lapic.activity = LAPIC_HLT;
    __atomic_store_n(&vcpu->attention, 1, __ATOMIC_RELAXED);
}

void vcpu_halted(struct vcpu *vcpu)
{
    struct domain *domain = vcpu->domain;
    bool all = true;

    /* Of two that halt at the same time, one at least sees the other. */
    __atomic_store_n(&vcpu->halted, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        const struct vcpu *v = domain->vcpu[i];
        bool halts = __atomic_load_n(&v->halted, __ATOMIC_SEQ_CST) || v->state == VCPU_OFF;
        all &= halts && !lapic_wakes(&v->lapic);
    }
    if (all) {
        /* So Linux powers a machine off that has no ACPI to do it; Xen takes it for that, too. */
        end_with(vcpu, domain->xen != NULL ? CLEAVE_POWERED_OFF : CLEAVE_HALTED, 0);
    }
}

static void unknown(struct vcpu *vcpu, const struct hvm_exit *exit, enum cleave_reason reason)
{
    const struct hvm_registers *r = &vcpu->hvm.regs;
    print("domain %u vcpu %u: %s: code %lx, detail %lx, rip %lx, rsp %lx, rax %lx\n",
          vcpu->domain->id, vcpu->number, stat_reason(reason), exit->code, exit->detail, r->rip,
          r->rsp, r->rax);
    end_with(vcpu, reason, exit->code);
}

/* --- The loop --------------------------------------------------------------------------------- */

static void handle(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_exit *exit)
{
    switch (exit->kind) {
    case HVM_EXIT_INTERRUPT:
        cpu_take_interrupts();
        break;
    case HVM_EXIT_WINDOW:
        hvm->window(&vcpu->hvm, false);
        __atomic_store_n(&vcpu->attention, 1, __ATOMIC_RELAXED);
        break;
    case HVM_EXIT_NESTED:
        nested_fault(ctx, vcpu, exit);
        break;
    case HVM_EXIT_HYPERCALL:
        this_cpu()->doing[0] = CPU_HYPERCALL;
        hypercall(ctx, vcpu, exit);
        break;
    case HVM_EXIT_CPUID:
        cpuid_exit(vcpu, exit);
        break;
    case HVM_EXIT_RDMSR:
    case HVM_EXIT_WRMSR:
        msr_access(ctx, vcpu, exit);
        break;
    case HVM_EXIT_IO:
        port_access(vcpu, exit);
        break;
    case HVM_EXIT_HLT:
        halt(vcpu, exit);
        break;
    case HVM_EXIT_XSETBV: {
        uint64_t value = (vcpu->hvm.regs.rdx << 32) | (uint32_t)vcpu->hvm.regs.rax;
        if (hvm_guest_xsetbv(&vcpu->hvm, (uint32_t)vcpu->hvm.regs.rcx, value)) {
            hvm->skip(&vcpu->hvm, exit);
        } else {
            inject_fault(vcpu);
        }
        break;
    }
    case HVM_EXIT_INVALID_OP:
        hvm->inject(&vcpu->hvm, HVM_EVENT_EXCEPTION(EXCEPTION_UD), 0);
        break;
    case HVM_EXIT_TRIPLE_FAULT:
        unknown(vcpu, exit, CLEAVE_TRIPLE_FAULT);
        break;
    case HVM_EXIT_ENTRY_FAILED:
        unknown(vcpu, exit, CLEAVE_ENTRY_FAILED);
        break;
    case HVM_EXIT_UNKNOWN:
        unknown(vcpu, exit, CLEAVE_UNKNOWN_EXIT);
        break;
    }
}

void vcpu_run(struct vcpu *vcpu)
{
    struct percpu *cpu = this_cpu();
    struct hvm_exit exit;

    if (flush_enter(&cpu->ctx, vcpu->domain->space) != CLEAVE_OK) {
        vcpu->sleep = SLEEP_CORE; /* its domain is being destroyed */
        return;
    }
    uint64_t slice_end = read_tsc() + ns_to_tsc(SCHED_SLICE_NS);
    timer_arm(timers_next(slice_end));
    while (!__atomic_load_n(&cpu->resched, __ATOMIC_ACQUIRE) && vcpu->sleep == SLEEP_NONE) {
        if (__atomic_exchange_n(&cpu->ticked, 0, __ATOMIC_ACQ_REL)) {
            timers_expire();
            if (read_tsc() >= slice_end) {
                break;
            }
            timer_arm(timers_next(slice_end));
        }
        if (vcpu->ending != CLEAVE_RUNNING) {
            try_end(&cpu->ctx, vcpu);
            continue;
        }
        if (__atomic_exchange_n(&cpu->kicked, 0, __ATOMIC_ACQ_REL) &&
            !flush_acknowledge(&cpu->ctx)) {
            break;
        }
        if (flush_running(cpu->id) == NULL) {
            break; /* it left a dying space while it waited for a lock */
        }
        if (__atomic_exchange_n(&vcpu->attention, 0, __ATOMIC_SEQ_CST) &&
            !vcpu_attention(&cpu->ctx, vcpu)) {
            continue;
        }
        if (vcpu->domain->starts && vcpu->number == 0) {
            stat_start(vcpu->domain);
        }
        cpu->doing[0] = CPU_GUEST;
        hvm->run(&vcpu->hvm, &exit);
        cpu->doing[0] = CPU_EXIT;
        cpu->exits++;
        vcpu->exits++;
        handle(&cpu->ctx, vcpu, &exit);
        if (vcpu->domain->state == CLEAVE_STATE_ENDED) {
            break;
        }
    }
    flush_leave(&cpu->ctx);
    hvm->vcpu_unload(&vcpu->hvm);
}
