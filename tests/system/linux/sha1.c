/* SPDX-License-Identifier: BSD-2-Clause */
/* FIPS 180-4, section 6.1; see sha1.h. */
#include "sha1.h"

#include <string.h>

static uint32_t rotate(uint32_t value, unsigned by) { return value << by | value >> (32 - by); }

static uint32_t big_endian(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return __builtin_bswap32(value);
}

static void add_block(uint32_t state[5], const uint8_t *block)
{
    static const uint32_t constant[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t w[80];
    for (unsigned t = 0; t < 16; t++) {
        w[t] = big_endian(block + 4 * t);
    }
    for (unsigned t = 16; t < 80; t++) {
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (unsigned t = 0; t < 80; t++) {
        uint32_t f = b ^ c ^ d; /* Parity */
        if (t < 20) {
            f = (b & c) | (~b & d); /* Ch */
        } else if (t >= 40 && t < 60) {
            f = (b & c) | (b & d) | (c & d); /* Maj */
        }
        uint32_t next = rotate(a, 5) + f + e + constant[t / 20] + w[t];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void sha1(const void *bytes, size_t size, uint8_t hash[SHA1_SIZE])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const uint8_t *at = bytes;
    size_t left = size;
    for (; left >= 64; left -= 64, at += 64) {
        add_block(state, at);
    }
    /* A one bit, zeros, and the size in bits fill one more block or two. */
    uint8_t last[128] = {0};
    memcpy(last, at, left);
    last[left] = 0x80;
    size_t end = left < 56 ? 64 : 128;
    uint64_t bits = __builtin_bswap64((uint64_t)size * 8);
    memcpy(last + end - sizeof(bits), &bits, sizeof(bits));
    add_block(state, last);
    if (end == 128) {
        add_block(state, last + 64);
    }
    for (unsigned i = 0; i < 5; i++) {
        uint32_t word = __builtin_bswap32(state[i]);
        memcpy(hash + 4 * i, &word, sizeof(word));
    }
}
