/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers of domains; see ids.h. At most two passes over some 500 words, however full it is. */
#include "ids.h"

/* Bit i: number 64 * word + i can be given. */
static uint64_t free_in(const struct ids *ids, uint32_t word)
{
    uint64_t bits = ~ids->taken[word];
    if (word == 0) {
        bits &= ~UINT64_C(1);
    }
    if (word == IDS_WORDS - 1 && DOMAIN_IDS % 64 != 0) {
        bits &= (UINT64_C(1) << DOMAIN_IDS % 64) - 1;
    }
    return bits;
}

/* Bit i: a row of `count` begins at 64 * word + i. */
static uint64_t rows_in(const struct ids *ids, uint32_t word, uint32_t count)
{
    unsigned __int128 bits = free_in(ids, word);
    if (word + 1 < IDS_WORDS) {
        bits |= (unsigned __int128)free_in(ids, word + 1) << 64;
    }
    for (uint32_t left = count; left > 1 && bits != 0;) {
        uint32_t part = left / 2;
        bits &= bits >> part; /* each bit that stays stands for `left` or more - part + part */
        left -= part;
    }
    return (uint64_t)bits;
}

uint32_t ids_take(struct ids *ids, uint32_t count)
{
    uint32_t start = (ids->last + 1) % DOMAIN_IDS;
    for (uint32_t i = 0; i <= IDS_WORDS; i++) {
        uint32_t word = (start / 64 + i) % IDS_WORDS;
        uint64_t rows = rows_in(ids, word, count);
        if (i == 0) {
            rows &= ~UINT64_C(0) << start % 64;
        }
        if (rows == 0) {
            continue;
        }
        uint32_t first = word * 64 + (uint32_t)__builtin_ctzll(rows);
        for (uint32_t id = first; id < first + count; id++) {
            ids->taken[id / 64] |= UINT64_C(1) << id % 64;
        }
        ids->last = first + count - 1;
        return first;
    }
    return 0;
}

bool ids_take_one(struct ids *ids, uint32_t id)
{
    uint64_t bit = UINT64_C(1) << id % 64;
    bool taken = (ids->taken[id / 64] & bit) != 0;
    ids->taken[id / 64] |= bit;
    return !taken;
}

void ids_drop(struct ids *ids, uint32_t id) { ids->taken[id / 64] &= ~(UINT64_C(1) << id % 64); }

uint32_t ids_next(const struct ids *ids, uint32_t id)
{
    for (uint32_t at = id + 1; at <= DOMAIN_ID_MAX; at = (at | 63) + 1) {
        uint64_t bits = ids->taken[at / 64] & (~UINT64_C(0) << at % 64);
        if (bits != 0) {
            return at / 64 * 64 + (uint32_t)__builtin_ctzll(bits);
        }
    }
    return 0;
}
