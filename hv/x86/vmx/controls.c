/* SPDX-License-Identifier: BSD-2-Clause */
/* What VMX must offer here, from the capability MSRs of SDM 3D appendix A. */
#include "platform.h"
#include "vmcs.h"

#define MSR_VMX_BASIC 0x480u
#define MSR_VMX_MISC 0x485u
#define MSR_VMX_SECONDARY 0x48bu
#define MSR_VMX_EPT_VPID 0x48cu
#define MSR_VMX_TRUE_PIN 0x48du
#define MSR_VMX_TRUE_PRIMARY 0x48eu
#define MSR_VMX_TRUE_EXIT 0x48fu
#define MSR_VMX_TRUE_ENTRY 0x490u
#define BASIC_TRUE_CONTROLS (UINT64_C(1) << 55)

#define FEATURE_LOCKED (UINT64_C(1) << 0)
#define FEATURE_VMX (UINT64_C(1) << 2)

#define EPT_CAPABILITY(bit) (UINT64_C(1) << (bit))
#define EPT_DIRTY_BITS EPT_CAPABILITY(21)
#define INVEPT_SINGLE EPT_CAPABILITY(25)
#define INVVPID_SINGLE EPT_CAPABILITY(41)

struct vmx_controls vmx_controls;

struct feature {
    uint64_t bit;
    const char *name;
};

static const struct feature pin_features[] = {
    {PIN_EXTERNAL_INTERRUPTS, "external-interrupt exiting"},
    {PIN_NMIS, "NMI exiting"},
    {PIN_VIRTUAL_NMIS, "virtual NMIs"},
    {0, NULL},
};
static const struct feature primary_features[] = {
    {PRIMARY_TSC_OFFSET, "TSC offsetting"},
    {PRIMARY_HLT, "HLT exiting"},
    {PRIMARY_MWAIT, "MWAIT exiting"},
    {PRIMARY_RDPMC, "RDPMC exiting"},
    {PRIMARY_CR8_LOAD, "CR8-load exiting"},
    {PRIMARY_CR8_STORE, "CR8-store exiting"},
    {PRIMARY_IO, "unconditional I/O exiting"},
    {PRIMARY_MSR_BITMAP, "MSR bitmaps"},
    {PRIMARY_MONITOR, "MONITOR exiting"},
    {PRIMARY_SECONDARY, "secondary controls"},
    {0, NULL},
};
static const struct feature secondary_features[] = {
    {SECONDARY_EPT, "EPT"},
    {SECONDARY_VPID, "VPID"},
    {SECONDARY_WBINVD, "WBINVD exiting"},
    {SECONDARY_UNRESTRICTED, "unrestricted guest"},
    {0, NULL},
};
static const struct feature exit_features[] = {
    {EXIT_SAVE_DEBUG, "save debug controls"},
    {EXIT_HOST_64, "host address-space size"},
    {EXIT_SAVE_PAT, "save PAT"},
    {EXIT_LOAD_PAT, "load PAT at exit"},
    {EXIT_SAVE_EFER, "save EFER"},
    {EXIT_LOAD_EFER, "load EFER at exit"},
    {0, NULL},
};
static const struct feature entry_features[] = {
    {ENTRY_LOAD_DEBUG, "load debug controls"},
    {ENTRY_GUEST_64, "IA-32e mode guest"},
    {ENTRY_LOAD_PAT, "load PAT at entry"},
    {ENTRY_LOAD_EFER, "load EFER at entry"},
    {0, NULL},
};
static const struct feature ept_features[] = {
    {EPT_CAPABILITY(6), "EPT with 4 levels"},
    {EPT_CAPABILITY(14), "write-back EPT tables"},
    {EPT_CAPABILITY(16), "2 MiB EPT leaves"},
    {EPT_CAPABILITY(17), "1 GiB EPT leaves"},
    {EPT_CAPABILITY(20), "INVEPT"},
    {EPT_CAPABILITY(26), "INVEPT of all contexts"},
    {EPT_CAPABILITY(32), "INVVPID"},
    {EPT_CAPABILITY(42), "INVVPID of all contexts"},
    {0, NULL},
};

/* The bits of `features`, when `allowed` has them all; else says which are missing. */
static bool require(const struct feature *features, uint64_t allowed, uint64_t *wanted)
{
    bool complete = true;
    for (*wanted = 0; features->name != NULL; features++) {
        *wanted |= features->bit;
        if (!(allowed & features->bit)) {
            print("  missing: %s\n", features->name);
            complete = false;
        }
    }
    return complete;
}

/* A word of controls: those wanted and those that must be one (the MSR's low half). */
static bool find(uint32_t msr, const struct feature *features, uint32_t *controls)
{
    uint64_t capability = rdmsr(msr), wanted;
    bool complete = require(features, capability >> 32, &wanted);
    *controls = (uint32_t)(wanted | capability);
    return complete;
}

static bool find_ept(void)
{
    uint64_t capability = rdmsr(MSR_VMX_EPT_VPID), wanted;
    bool complete = require(ept_features, capability, &wanted);
    if (!(capability & EPT_DIRTY_BITS) || boot_option("no-ept-dirty-bits")) {
        hvm_ept_dirty_bits = false;
    }
    vmx_controls.invept_single = (capability & INVEPT_SINGLE) != 0;
    vmx_controls.invvpid_single = (capability & INVVPID_SINGLE) != 0;
    return complete;
}

/* Optional: see prepare_timer(). It counts at the TSC's rate, divided (A.6). */
static void find_preemption_timer(struct vmx_controls *c)
{
    if (rdmsr(MSR_VMX_TRUE_PIN) >> 32 & PIN_PREEMPTION_TIMER) {
        c->pin |= PIN_PREEMPTION_TIMER;
        c->millisecond = (uint32_t)(tsc_per_second / 1000 >> (rdmsr(MSR_VMX_MISC) & 31)) + 1;
    }
}

static bool find_controls(void)
{
    struct vmx_controls *c = &vmx_controls;
    bool complete = find(MSR_VMX_TRUE_PIN, pin_features, &c->pin);
    complete &= find(MSR_VMX_TRUE_PRIMARY, primary_features, &c->primary);
    complete &= find(MSR_VMX_TRUE_EXIT, exit_features, &c->exit);
    complete &= find(MSR_VMX_TRUE_ENTRY, entry_features, &c->entry);
    find_preemption_timer(c);
    c->entry &= ~ENTRY_GUEST_64; /* by the guest's mode */
    if (c->primary & (PRIMARY_CR3_LOAD | PRIMARY_CR3_STORE)) {
        print("  missing: guests that use CR3 without exits\n");
        complete = false;
    }
    if (!(c->primary & PRIMARY_SECONDARY)) {
        return false;
    }
    uint64_t secondary = rdmsr(MSR_VMX_SECONDARY);
    complete &= find(MSR_VMX_SECONDARY, secondary_features, &c->secondary);
    c->secondary |= SECONDARY_RDTSCP & (uint32_t)(secondary >> 32);
    return complete && find_ept();
}

bool vmx_controls_find(void)
{
    uint64_t basic = rdmsr(MSR_VMX_BASIC), feature = rdmsr(MSR_FEATURE_CONTROL);
    vmx_controls.revision = (uint32_t)basic & 0x7fffffffu;
    if (feature & FEATURE_LOCKED && !(feature & FEATURE_VMX)) {
        print("  VMX is disabled by the firmware (IA32_FEATURE_CONTROL is %lx)\n", feature);
        return false;
    }
    if (!(basic & BASIC_TRUE_CONTROLS)) {
        print("  missing: true controls (IA32_VMX_BASIC[55])\n");
        return false;
    }
    return find_controls();
}
