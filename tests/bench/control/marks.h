/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marks: no-operations (NOP with a 32-bit displacement) by which a program says to the emulator's
 * plugin which figure it measures, and how far it is.
 */
#ifndef MARKS_H
#define MARKS_H

#include <stdint.h>

#define MARK_SIZE 8u
#define MARK_MAGIC UINT32_C(0x1eaf0000)

enum mark_how {
    MARK_BEGIN, /* of a figure */
    MARK_ENTER, /* an ioctl is called */
    MARK_RETURN,
    MARK_END,  /* of a figure */
    MARK_FIRST /* the first instruction of a domain that was just let run */
};

#define MARK(how, figure) (MARK_MAGIC | (uint32_t)(figure) << 4 | (uint32_t)(how))
#define MARK_HOW(mark) ((mark)&0xf)
#define MARK_FIGURE(mark) (((mark)&0xffff) >> 4)

/* nopl MARK(%rax,%rax,1) */
#define MARK_HERE(how, figure)                                                                     \
    __asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00\n\t.long %c0" ::"i"(MARK(how, figure))          \
                     : "memory")

/* The mark that these bytes are; 0: none. */
static inline uint32_t mark_of(const uint8_t *code)
{
    uint32_t mark = (uint32_t)code[4] | (uint32_t)code[5] << 8 | (uint32_t)code[6] << 16 |
                    (uint32_t)code[7] << 24;
    return code[0] == 0x0f && code[1] == 0x1f && code[2] == 0x84 && code[3] == 0 &&
                   (mark & UINT32_C(0xffff0000)) == MARK_MAGIC
               ? mark
               : 0;
}

#endif
