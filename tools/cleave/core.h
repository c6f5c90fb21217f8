/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An ELF core of a domain: what stands in it, in a table of bounded size, and its bytes in their
 * order. Plain structures of <elf.h>: libelf keeps a file's contents in memory and seeks, and so
 * can neither stream nor write to a pipe.
 */
#ifndef CORE_H
#define CORE_H

#include "cleave.h"

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <xenctrl.h>

#define CORE_PIECES 4096u /* of memory; where there are more, small gaps are written as zeros */
#define CORE_VIEWS 4096u  /* of the kernel's mapping; what is past that is left out */
#define CORE_INFO 4096u   /* bytes of Linux's VMCOREINFO */

/* Memory from `at`: `bytes` of it stand in the file, the rest of `size` is zeros. */
struct core_piece {
    uint64_t at, bytes, size;
    uint64_t offset; /* in the file */
};
/* The same memory as the kernel of the domain sees it. */
struct core_view {
    uint64_t virtual, at, size;
};

struct core {
    struct cleave_handle *cleave;
    uint32_t domain;
    const char *name;
    struct core_piece piece[CORE_PIECES];
    unsigned pieces;
    uint64_t slack; /* gaps of up to so many bytes are filled */
    struct core_view view[CORE_VIEWS];
    unsigned views;
    uint64_t cr3;                  /* of the vcpu by whose page tables the views are */
    unsigned char info[CORE_INFO]; /* a Linux's VMCOREINFO, text, where there is one */
    size_t info_size;
    unsigned char *context; /* the domain's HVM context */
    size_t context_size;
    unsigned vcpus;        /* that were started */
    uint64_t memory, size; /* bytes of memory in the file; of the file */
};

/* Where the bytes go; false: stop. */
typedef bool core_sink_t(void *to, const void *bytes, size_t size);

/* Looks at memory and vcpus. 0, or what the library refused; -EIO: `why` (CLEAVE_MESSAGE_SIZE)
 * says what. The domain should stand still. */
int core_plan(struct core *core, struct cleave_handle *cleave, uint32_t domain, const char *name,
              xc_interface *xc, char *why);
/* All its bytes. 0, what the library refused, or -EIO when `sink` said stop. */
int core_write(struct core *core, core_sink_t *sink, void *to);
void core_free(struct core *core);

#endif
