/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of a core (core.h) share: core.c has memory and the layout, core_notes.c vcpus and
 * notes, core_linux.c what is known of a Linux in the domain.
 */
#ifndef CORE_PARTS_H
#define CORE_PARTS_H

#include "core.h"

#include <xen/hvm/save.h>

#define PAGE UINT64_C(4096)
#define PART ((size_t)CLEAVE_COPY_MAX)

/* Bytes of the file, in their order. */
struct core_writer {
    core_sink_t *sink;
    void *to;
    uint64_t written;
    bool stopped; /* the sink wants no more */
};

void core_emit(struct core_writer *w, const void *bytes, size_t size);
/* `size` (at most PART) bytes of memory; `*bytes` is good until the library's next call. Pages that
 * are not there, or not any more, are zeros. 0, or what the library refused. */
int core_read_part(struct core *core, uint64_t at, size_t size, const unsigned char **bytes);

/* Reads the vcpus' state, which core_free() frees. 0, or -EIO: `why` says what is wrong. */
int core_plan_vcpus(struct core *core, xc_interface *xc, char *why);
/* The next CPU record from `*at` on, and which vcpu's it is; null at the end. */
const struct hvm_hw_cpu *core_next_cpu(const struct core *core, size_t *at, unsigned *vcpu);
size_t core_notes_size(const struct core *core);
void core_emit_notes(const struct core *core, struct core_writer *w);

/* Looks for the addresses of the kernel's image, and for its VMCOREINFO; finding none is no error.
 */
void core_plan_linux(struct core *core);

#endif
