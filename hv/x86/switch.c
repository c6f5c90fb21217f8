/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest registers that are switched by hand, when another vcpu is loaded; see switch.h. XSAVE: SDM
 * 1 chapter 13. Only the CPU on which a vcpu is loaded touches its record.
 */
#include "switch.h"

#include "platform.h"

uint64_t xsave_components;
static bool has_tsc_aux;

/* Components that are only enabled together (SDM 1 13.3). */
static const uint64_t component_sets[] = {
    UINT64_C(1) << 2, /* AVX */
    UINT64_C(7) << 5, /* AVX-512: opmask, upper halves, upper registers */
    UINT64_C(1) << 9, /* PKRU */
};

static void write_xcr0(uint64_t value)
{
    __asm__ volatile("xsetbv"
                     :
                     : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0) : "memory");
    return (uint64_t)high << 32 | low;
}

uint32_t xsave_size(uint64_t components)
{
    uint32_t size = 576; /* legacy region and header */
    for (unsigned i = 2; i < 63; i++) {
        if (components & UINT64_C(1) << i) {
            struct cpuid c = cpuid(0xd, i);
            if (c.ebx + c.eax > size) {
                size = c.ebx + c.eax;
            }
        }
    }
    return size;
}

bool switch_present(void)
{
    if (cpuid(0, 0).eax < 0xd || !(cpuid(1, 0).ecx & 1u << 26)) {
        print("  missing: XSAVE (CPUID.1:ECX[26])\n");
        return false;
    }
    return true;
}

void switch_enable(void)
{
    write_cr0((read_cr0() & ~(CR0_EM | CR0_TS)) | CR0_MP);
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE);
    struct cpuid d = cpuid(0xd, 0);
    uint64_t host = (uint64_t)d.edx << 32 | d.eax, components = 3; /* x87 and SSE */
    for (unsigned i = 0; i < sizeof(component_sets) / sizeof(component_sets[0]); i++) {
        uint64_t set = component_sets[i];
        if ((host & set) == set && xsave_size(set) <= PAGE_SIZE) {
            components |= set;
        }
    }
    has_tsc_aux = (cpuid(0x80000001, 0).edx & 1u << 27) != 0;
    xsave_components = components;
    write_xcr0(components);
}

/* --- The vcpu's record ------------------------------------------------------------------------ */

uint64_t switch_new_owner(void)
{
    static uint64_t last;
    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

void switch_init(struct hvm_vcpu *vcpu)
{
    const struct xsave_area *area = vcpu->xsave;
    if (area->components == 0) {
        hvm_xsave_reset(vcpu->xsave);
    }
    vcpu->loaded_on = -1;
    vcpu->last_cpu = 0;
    vcpu->launched = 0;
    vcpu->window = 0;
    vcpu->flush = 0;
}

void switch_save(struct hvm_vcpu *vcpu, struct hvm_state *state)
{
    state->regs = vcpu->regs;
    state->cr2 = vcpu->cr2;
    state->cr8 = vcpu->cr8;
    state->xcr0 = vcpu->xcr0;
    state->tsc_aux = vcpu->tsc_aux;
    state->pending = vcpu->pending;
    state->pending_error = vcpu->pending_error;
    for (unsigned i = 0; i < 4; i++) {
        state->dr[i] = vcpu->dr[i];
    }
}

void switch_restore(struct hvm_vcpu *vcpu, const struct hvm_state *state)
{
    vcpu->regs = state->regs;
    vcpu->cr2 = state->cr2;
    vcpu->cr8 = state->cr8;
    vcpu->xcr0 = (state->xcr0 & xsave_components) | 1;
    vcpu->tsc_aux = state->tsc_aux;
    vcpu->pending = state->pending;
    vcpu->pending_error = state->pending_error;
    for (unsigned i = 0; i < 4; i++) {
        vcpu->dr[i] = state->dr[i];
    }
    vcpu->owner = switch_new_owner();
}

/* --- The CPU's registers ---------------------------------------------------------------------- */

/* All components, whatever the guest's XCR0 enables now: it may enable them again. */
static void fpu_save(void *area)
{
    write_xcr0(xsave_components);
    __asm__ volatile("xsave64 (%0)"
                     :
                     : "r"(area), "a"((uint32_t)xsave_components),
                       "d"((uint32_t)(xsave_components >> 32))
                     : "memory");
}

static void fpu_restore(const void *area)
{
    write_xcr0(xsave_components);
    __asm__ volatile("xrstor64 (%0)"
                     :
                     : "r"(area), "a"((uint32_t)xsave_components),
                       "d"((uint32_t)(xsave_components >> 32))
                     : "memory");
}

bool switch_in(struct hvm_vcpu *vcpu)
{
    struct percpu *cpu = this_cpu();
    bool moved = vcpu->last_cpu != cpu->id;
    if (moved) {
        /* What this CPU still caches of an earlier run may have been invalidated elsewhere. */
        vcpu->owner = switch_new_owner();
        vcpu->last_cpu = cpu->id;
    }
    fpu_restore(vcpu->xsave);
    write_xcr0(vcpu->xcr0);
    __asm__ volatile("mov %0, %%db0" : : "r"(vcpu->dr[0]));
    __asm__ volatile("mov %0, %%db1" : : "r"(vcpu->dr[1]));
    __asm__ volatile("mov %0, %%db2" : : "r"(vcpu->dr[2]));
    __asm__ volatile("mov %0, %%db3" : : "r"(vcpu->dr[3]));
    if (has_tsc_aux) {
        wrmsr(MSR_TSC_AUX, vcpu->tsc_aux);
    }
    vcpu->loaded_on = (int)cpu->id;
    cpu->loaded = vcpu;
    return moved;
}

uint64_t switch_xcr0(const struct hvm_vcpu *vcpu)
{
    return this_cpu()->loaded == vcpu ? read_xcr0() & xsave_components : vcpu->xcr0;
}

void switch_sync(struct hvm_vcpu *vcpu)
{
    vcpu->xcr0 = switch_xcr0(vcpu);
    fpu_save(vcpu->xsave);
    write_xcr0(vcpu->xcr0);
    __asm__ volatile("mov %%db0, %0" : "=r"(vcpu->dr[0]));
    __asm__ volatile("mov %%db1, %0" : "=r"(vcpu->dr[1]));
    __asm__ volatile("mov %%db2, %0" : "=r"(vcpu->dr[2]));
    __asm__ volatile("mov %%db3, %0" : "=r"(vcpu->dr[3]));
}

void switch_set_xcr0(struct hvm_vcpu *vcpu, uint64_t value)
{
    vcpu->xcr0 = value;
    if (this_cpu()->loaded == vcpu) {
        write_xcr0(value);
    }
}

void switch_set_tsc_aux(struct hvm_vcpu *vcpu, uint64_t value)
{
    vcpu->tsc_aux = value;
    if (this_cpu()->loaded == vcpu) {
        wrmsr(MSR_TSC_AUX, value);
    }
}

/* --- Events ----------------------------------------------------------------------------------- */

/* Exceptions by class (SDM 3A tables 6-4 and 6-5). */
static bool is_contributory(uint32_t vector)
{
    return vector == 0 || (vector >= 10 && vector <= EXCEPTION_GP);
}

void hvm_inject(struct hvm_vcpu *vcpu, uint32_t event, uint32_t error)
{
    uint32_t first = vcpu->pending & 0xff, second = event & 0xff;
    bool both = vcpu->pending & event & HVM_EVENT_VALID && (vcpu->pending >> 8 & 7) == 3 &&
                (event >> 8 & 7) == 3;
    bool serious = is_contributory(second) || second == EXCEPTION_PF;
    bool third = both && first == EXCEPTION_DF && serious;
    bool twice = both && ((is_contributory(first) && is_contributory(second)) ||
                          (first == EXCEPTION_PF && serious));
    vcpu->pending = third   ? HVM_EVENT_SHUTDOWN
                    : twice ? HVM_EVENT_EXCEPTION(EXCEPTION_DF) | HVM_EVENT_ERROR
                            : event;
    vcpu->pending_error = third || twice ? 0 : error;
}
