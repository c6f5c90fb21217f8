/* SPDX-License-Identifier: BSD-2-Clause */
/* The four functions that compilers call on their own. */
#include "types.h"

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *at = to;
    size_t words = bytes / 8;
    bytes %= 8;
    __asm__ volatile("rep movsq" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    if ((uintptr_t)to - (uintptr_t)from >= bytes) {
        return memcpy(to, from, bytes);
    }
    /* `to` lies within `from`: from the end. */
    unsigned char *last = (unsigned char *)to + bytes - 1;
    const unsigned char *source = (const unsigned char *)from + bytes - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(last), "+S"(source), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int byte, size_t bytes)
{
    void *at = to;
    uint64_t word = (unsigned char)byte * UINT64_C(0x0101010101010101);
    size_t words = bytes / 8;
    bytes %= 8;
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(word) : "memory");
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(word) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const unsigned char *left = a, *right = b;
    for (size_t i = 0; i < bytes; i++) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}
