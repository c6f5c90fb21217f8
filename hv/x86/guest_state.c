/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a record of a vcpu that comes from elsewhere may be loaded: SDM 3C 27.3.1 and APM 2
 * 15.5.1 for the entry, which the CPU checks, and what faults where this hypervisor loads it by
 * itself: WRMSR, MOV to DR6, XSETBV, XRSTOR.
 */
#include "switch.h"

#define CR0_AM (UINT64_C(1) << 18)
#define CR0_GUEST                                                                                  \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |     \
     CR0_PG)
#define RFLAGS_GUEST UINT64_C(0x3f7fd7)
#define RFLAGS_FIXED UINT64_C(2)
#define RFLAGS_VM (UINT64_C(1) << 17)

#define ATTRIBUTE_L 0x200u
#define ATTRIBUTE_UNUSABLE 0x1000u
#define ATTRIBUTES 0x1fffu

#define XCR0_X87 (UINT64_C(1) << 0)
#define XCR0_SSE (UINT64_C(1) << 1)
#define XCR0_AVX (UINT64_C(1) << 2)
#define XCR0_AVX512 (UINT64_C(7) << 5)

#define LEGACY_SIZE 512u
#define X87_RESET_FCW 0x37fu
#define SSE_RESET_MXCSR 0x1f80u
#define MXCSR_MASK_DEFAULT 0xffbfu /* where FXSAVE stores zero (SDM 1 11.6.6) */

/* Exceptions that push an error code: DF, TS, NP, SS, GP, PF, AC. */
#define ERROR_VECTORS (1u << 8 | 0x1fu << 10 | 1u << EXCEPTION_AC)

/* --- Registers -------------------------------------------------------------------------------- */

static bool is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

static bool controls_legal(const struct hvm_state *state)
{
    bool paging = (state->cr0 & CR0_PG) != 0;
    bool long_mode = (state->efer & EFER_LMA) != 0;
    if (state->cr0 & ~CR0_GUEST || state->cr4 & ~CR4_GUEST || state->efer & ~EFER_GUEST) {
        return false;
    }
    if ((paging && !(state->cr0 & CR0_PE)) || (state->cr0 & CR0_NW && !(state->cr0 & CR0_CD))) {
        return false;
    }
    if (long_mode != (paging && state->efer & EFER_LME) || (long_mode && !(state->cr4 & CR4_PAE))) {
        return false;
    }
    if (state->cr3 >> GUEST_BITS != 0 || state->cr8 > 15) {
        return false;
    }
    return !(state->dr6 >> 32) && !(state->dr7 >> 32) && hvm_xcr0_legal(state->xcr0);
}

/* CS, SS, DS and ES have bases of 32 bits; those of the others are linear addresses. */
static bool segments_legal(const struct hvm_state *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct hvm_segment *s = &state->segment[i];
        bool usable = !(s->attributes & ATTRIBUTE_UNUSABLE);
        bool flat = i == SEG_CS || ((i == SEG_SS || i == SEG_DS || i == SEG_ES) && usable);
        if (s->attributes & ~ATTRIBUTES || !is_canonical(s->base) ||
            (flat && s->base > UINT32_MAX)) {
            return false;
        }
    }
    return is_canonical(state->gdt_base) && is_canonical(state->idt_base) &&
           state->gdt_limit <= UINT16_MAX && state->idt_limit <= UINT16_MAX;
}

static bool flow_legal(const struct hvm_state *state)
{
    uint64_t rflags = state->regs.rflags;
    bool long_mode = (state->efer & EFER_LMA) != 0;
    bool code64 = long_mode && state->segment[SEG_CS].attributes & ATTRIBUTE_L;
    if (rflags & ~RFLAGS_GUEST || !(rflags & RFLAGS_FIXED) || (long_mode && rflags & RFLAGS_VM)) {
        return false;
    }
    if (state->interruptibility & ~3u) {
        return false;
    }
    return code64 ? is_canonical(state->regs.rip) : state->regs.rip <= UINT32_MAX;
}

static bool msrs_legal(const struct hvm_state *state)
{
    return is_canonical(state->lstar) && is_canonical(state->cstar) &&
           is_canonical(state->kernel_gs_base) && is_canonical(state->sysenter_esp) &&
           is_canonical(state->sysenter_eip) && state->sysenter_cs <= UINT32_MAX &&
           state->sfmask <= UINT32_MAX && state->tsc_aux <= UINT32_MAX &&
           switch_pat_legal(state->pat);
}

/* Interrupts, NMIs and exceptions of the CPU's; no instruction is behind them. */
static bool event_legal(const struct hvm_state *state)
{
    uint32_t event = state->pending, vector = event & 0xff;
    bool error = (event & HVM_EVENT_ERROR) != 0;
    if (event == HVM_EVENT_SHUTDOWN || event == 0) {
        return true;
    }
    if (!(event & HVM_EVENT_VALID) || event & ~(HVM_EVENT_VALID | UINT32_C(0xfff))) {
        return false;
    }
    switch (event >> 8 & 7) {
    case 0:
        return !error;
    case 2:
        return vector == 2 && !error;
    case 3:
        return vector < 32 && vector != 2 &&
               (!error || (ERROR_VECTORS >> vector & 1 && state->pending_error <= UINT16_MAX));
    default:
        return false;
    }
}

bool hvm_state_legal(const struct hvm_state *state)
{
    return controls_legal(state) && segments_legal(state) && flow_legal(state) &&
           msrs_legal(state) && event_legal(state) && state->debugctl == 0;
}

bool switch_pat_legal(uint64_t pat)
{
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t type = pat >> i & 0xff;
        if (type > 7 || type == 2 || type == 3) { /* SDM 3A table 12-10 */
            return false;
        }
    }
    return true;
}

/* --- XSAVE ------------------------------------------------------------------------------------ */

bool hvm_xcr0_legal(uint64_t xcr0)
{
    uint64_t avx512 = xcr0 & XCR0_AVX512;
    const uint64_t below = XCR0_SSE | XCR0_AVX; /* what AVX-512 needs (SDM 1 13.3) */
    return xcr0 & XCR0_X87 && !(xcr0 & ~xsave_components) &&
           (!(xcr0 & XCR0_AVX) || xcr0 & XCR0_SSE) &&
           (avx512 == 0 || (avx512 == XCR0_AVX512 && (xcr0 & below) == below));
}

static uint32_t mxcsr_mask(void)
{
    struct {
        _Alignas(16) struct xsave_area area;
    } now;
    now.area.mxcsr_mask = 0;
    __asm__ volatile("fxsave64 %0" : "=m"(now.area));
    return now.area.mxcsr_mask != 0 ? now.area.mxcsr_mask : MXCSR_MASK_DEFAULT;
}

/* What XRSTOR faults for in the standard format (SDM 2C XRSTOR): it takes MXCSR from there even
 * where the header says that SSE is as after a reset. */
bool hvm_xsave_legal(const void *page)
{
    const struct xsave_area *area = page;
    uint64_t reserved = area->compacted;
    for (unsigned i = 0; i < 6; i++) {
        reserved |= area->reserved[i];
    }
    return !(area->components & ~xsave_components) && reserved == 0 &&
           !(area->mxcsr & ~mxcsr_mask());
}

void hvm_xsave_set_legacy(void *page, const void *registers)
{
    struct xsave_area *area = page;
    if (__builtin_memcmp(page, registers, LEGACY_SIZE) != 0) {
        __builtin_memcpy(page, registers, LEGACY_SIZE);
        area->components |= XCR0_X87 | XCR0_SSE;
    }
}

void hvm_xsave_reset(void *page)
{
    struct xsave_area *area = page;
    __builtin_memset(page, 0, PAGE_SIZE);
    area->fcw = X87_RESET_FCW;
    area->mxcsr = SSE_RESET_MXCSR;
    area->components = XCR0_X87 | XCR0_SSE;
}
