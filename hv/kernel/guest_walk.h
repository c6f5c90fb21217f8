/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's own page tables: linear addresses to guest-physical ones, and copies through them.
 * Knows a space and control registers, no vcpu, so that it also runs in a test. Each table entry is
 * read once; the guest may change them meanwhile.
 */
#ifndef KERNEL_GUEST_WALK_H
#define KERNEL_GUEST_WALK_H

#include "space.h"

/* The paging mode of the moment (SDM 3A 4.1.1, APM 2 5.1). */
enum guest_mode { GUEST_FLAT, GUEST_PAGING_32, GUEST_PAGING_PAE, GUEST_PAGING_4_LEVEL };

struct guest_paging {
    enum guest_mode mode;
    bool write_protect; /* CR0.WP: supervisor writes heed the write bit */
    bool large;         /* CR4.PSE: 32-bit paging has 4 MiB pages */
    bool no_execute;    /* EFER.NXE: bit 63 of an entry is not reserved */
    uint64_t root;      /* guest-physical address of the first table */
};

/* Decodes the control registers. CLEAVE_INVALID (paging, CR4): 5-level paging. */
enum cleave_status guest_paging_decode(struct mm_ctx *ctx, uint64_t cr0, uint64_t cr3, uint64_t cr4,
                                       uint64_t efer, struct guest_paging *paging) MUST_CHECK;

/*
 * The guest-physical address of `linear` for a supervisor's read or write of data: present entries
 * without reserved bits, for a write also the write bit at each level, unless CR0.WP is clear. The
 * user bit, protection keys and SMAP are not looked at, accessed and dirty bits not set; with PAE
 * paging the four top entries are read from memory. CLEAVE_FAULT (`name`, the address): not
 * canonical, past 4 GiB outside of 4-level paging, or not mapped; CLEAVE_WAIT: a table is still to
 * be loaded, `wait` is queued. `reader` is of the space, and may hold what it read last.
 */
enum cleave_status guest_translate(struct mm_ctx *ctx, struct space_reader *reader,
                                   const struct guest_paging *paging, uint64_t linear, bool write,
                                   const char *name, struct vcpu_wait *wait, gpa_t *at) MUST_CHECK;

/* Copies `size` bytes between guest memory at `linear` and the hypervisor's, page by page; any
 * address. The errors of guest_translate() (value: the first byte of the page, or `linear`),
 * CLEAVE_WRAP (the end of the address space), and those of space_read() and space_write(). What was
 * copied before a failure stays. */
enum cleave_status guest_copy_in(struct mm_ctx *ctx, struct space *space,
                                 const struct guest_paging *paging, uint64_t linear, void *to,
                                 uint64_t size, const char *name,
                                 struct vcpu_wait *wait) MUST_CHECK;
enum cleave_status guest_copy_out(struct mm_ctx *ctx, struct space *space,
                                  const struct guest_paging *paging, uint64_t linear,
                                  const void *from, uint64_t size, const char *name,
                                  struct vcpu_wait *wait) MUST_CHECK;

#endif
