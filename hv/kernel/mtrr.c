/* SPDX-License-Identifier: BSD-2-Clause */
/* See mtrr.h. */
#include "mtrr.h"

enum {
    MSR_CAPABILITY = 0xfe,
    MSR_VARIABLE = 0x200,
    MSR_FIXED_64K = 0x250,
    MSR_FIXED_16K = 0x258, /* two */
    MSR_FIXED_4K = 0x268,  /* eight */
    MSR_DEF_TYPE = 0x2ff
};

#define CAPABILITY (1u << 10 | 1u << 8 | MTRR_VARIABLE) /* write-combining, fixed ranges */
#define WRITE_BACK UINT64_C(6)
#define DEF_TYPE_ENABLE (UINT64_C(1) << 11)
#define DEF_TYPE_FIXED (UINT64_C(1) << 10)
#define MASK_VALID (UINT64_C(1) << 11)
#define BYTES UINT64_C(0x0101010101010101)

void mtrr_init(struct mtrr *mtrr)
{
    *mtrr = (struct mtrr){.def_type = DEF_TYPE_ENABLE | WRITE_BACK};
    for (unsigned i = 0; i < MTRR_FIXED; i++) {
        mtrr->fixed[i] = WRITE_BACK * BYTES;
    }
}

/* Where `msr` is kept, when it is one of these; null for others and for IA32_MTRRCAP. */
static const uint64_t *find(const struct mtrr *mtrr, uint32_t msr)
{
    if (msr - MSR_VARIABLE < 2 * MTRR_VARIABLE) {
        return &mtrr->variable[msr - MSR_VARIABLE];
    }
    if (msr == MSR_FIXED_64K) {
        return &mtrr->fixed[0];
    }
    if (msr - MSR_FIXED_16K < 2) {
        return &mtrr->fixed[1 + msr - MSR_FIXED_16K];
    }
    if (msr - MSR_FIXED_4K < 8) {
        return &mtrr->fixed[3 + msr - MSR_FIXED_4K];
    }
    return msr == MSR_DEF_TYPE ? &mtrr->def_type : NULL;
}

bool mtrr_has(uint32_t msr)
{
    static const struct mtrr none;
    return msr == MSR_CAPABILITY || find(&none, msr) != NULL;
}

uint64_t mtrr_capability(void) { return CAPABILITY; }

uint64_t mtrr_read(const struct mtrr *mtrr, uint32_t msr)
{
    return msr == MSR_CAPABILITY ? CAPABILITY : *find(mtrr, msr);
}

/* Uncached, write-combining, write-through, write-protected, write-back. */
static bool is_type(uint64_t type)
{
    return type == 0 || type == 1 || (type >= 4 && type <= WRITE_BACK);
}

static bool are_types(uint64_t value)
{
    bool good = true;
    for (unsigned i = 0; i < 64; i += 8) {
        good &= is_type(value >> i & 0xff);
    }
    return good;
}

static bool is_legal(uint32_t msr, uint64_t value)
{
    if (msr == MSR_DEF_TYPE) {
        return is_type(value & ~(DEF_TYPE_ENABLE | DEF_TYPE_FIXED));
    }
    if (msr >= MSR_FIXED_64K) {
        return are_types(value);
    }
    if (value >> GUEST_BITS != 0) {
        return false;
    }
    return msr & 1 ? (value & 0xfff & ~MASK_VALID) == 0 : is_type(value & 0xfff);
}

bool mtrr_write(struct mtrr *mtrr, uint32_t msr, uint64_t value)
{
    uint64_t *at = (uint64_t *)find(mtrr, msr);
    if (at == NULL || !is_legal(msr, value)) {
        return false;
    }
    *at = value;
    return true;
}

bool mtrr_legal(const struct mtrr *mtrr)
{
    bool legal = is_legal(MSR_DEF_TYPE, mtrr->def_type);
    for (unsigned i = 0; i < 2 * MTRR_VARIABLE; i++) {
        legal &= is_legal(MSR_VARIABLE + i, mtrr->variable[i]);
    }
    for (unsigned i = 0; i < MTRR_FIXED; i++) {
        legal &= is_legal(MSR_FIXED_64K, mtrr->fixed[i]);
    }
    return legal;
}
