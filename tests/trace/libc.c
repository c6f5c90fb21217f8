/* SPDX-License-Identifier: BSD-2-Clause */
/* What the driver and the reference call of the C library, on the hypervisor's platform. Memory
 * comes from one range, in sizes that are powers of two. CPU 0 alone allocates. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "machine.h"
#include "platform.h"

/* --- Memory ----------------------------------------------------------------------------------- */

#define CLASSES 30u /* blocks of 32 bytes << class, header included */

/* In front of what is handed out. */
struct block {
    struct block *next; /* while it is free */
    size_t class;
};

static struct block *free_blocks[CLASSES];
static unsigned char *unused, *end;

void libc_start(void *memory, uint64_t bytes)
{
    unused = memory;
    end = unused + bytes;
}

void *malloc(size_t size)
{
    size_t class = 0;
    while (((size_t)32 << class) - sizeof(struct block) < size) {
        class ++;
    }
    MM_CHECK(class < CLASSES);
    struct block *block = free_blocks[class];
    if (block != NULL) {
        free_blocks[class] = block->next;
    } else {
        if ((size_t)(end - unused) < (size_t)32 << class) {
            crash("%lu bytes for the reference are not left", size);
        }
        block = (struct block *)(void *)unused;
        block->class = class;
        unused += (size_t)32 << class;
    }
    return block + 1;
}

void *calloc(size_t count, size_t size)
{
    MM_CHECK(size == 0 || count <= SIZE_MAX / size);
    return memset(malloc(count * size), 0, count * size);
}

void free(void *memory)
{
    if (memory != NULL) {
        struct block *block = (struct block *)memory - 1;
        block->next = free_blocks[block->class];
        free_blocks[block->class] = block;
    }
}

void abort(void) { crash("abort()"); }

/* --- Text ------------------------------------------------------------------------------------- */

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    return length;
}

char *strstr(const char *text, const char *wanted)
{
    size_t length = strlen(wanted), left = strlen(text);
    for (; left >= length; text++, left--) {
        if (memcmp(text, wanted, length) == 0) {
            return (char *)(uintptr_t)text;
        }
    }
    return NULL;
}

int printf(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprint(format, arguments);
    va_end(arguments);
    return 0;
}

int vsnprintf(char *to, size_t room, const char *format, va_list arguments)
{
    return format_text_list(to, room, format, arguments);
}

int snprintf(char *to, size_t room, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(to, room, format, arguments);
    va_end(arguments);
    return count;
}
