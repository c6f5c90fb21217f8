/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a core tells of a Linux in the domain, by the domain's own page tables: under which
 * addresses the kernel knows its image, and its VMCOREINFO. Whatever stands in the domain, the work
 * is bounded.
 */
#include "core_parts.h"

#include <stddef.h>
#include <string.h>

/* --- The kernel's own addresses --------------------------------------------------------------- */

/* Linux for x86-64 maps its image in this 1 GiB (__START_KERNEL_map): one entry of the third level.
 * Intel SDM 3A, 4.5: entries are 8 bytes, bit 0 present, bit 7 a large page, 51:12 the address. */
#define KERNEL_MAP UINT64_C(0xffffffff80000000)
#define TABLE_ENTRIES 512u
#define ENTRY_PRESENT 1u
#define ENTRY_LARGE 0x80u
#define ENTRY_ADDRESS UINT64_C(0xffffffffff000)
#define CR0_PAGING (UINT64_C(1) << 31)
#define CR4_LA57 (UINT64_C(1) << 12)
#define EFER_LONG (UINT64_C(1) << 10)

static void add_view(struct core *core, uint64_t virtual, uint64_t at, uint64_t size)
{
    struct core_view *last = core->views != 0 ? &core->view[core->views - 1] : NULL;
    if (last != NULL && last->virtual + last->size == virtual && last->at + last->size == at) {
        last->size += size;
    } else if (core->views < CORE_VIEWS) {
        core->view[core->views++] = (struct core_view){virtual, at, size};
    }
}

static bool read_table(struct core *core, uint64_t entry, uint64_t table[TABLE_ENTRIES])
{
    return (entry & ENTRY_PRESENT) != 0 &&
           cleave_read(core->cleave, core->domain, entry & ENTRY_ADDRESS, table, PAGE) == 0;
}

static void view_kernel(struct core *core, uint64_t cr3)
{
    static uint64_t upper[TABLE_ENTRIES], table[TABLE_ENTRIES];
    if (!read_table(core, cr3 | ENTRY_PRESENT, upper) ||
        !read_table(core, upper[KERNEL_MAP >> 39 & 511], upper) ||
        (upper[KERNEL_MAP >> 30 & 511] & ENTRY_LARGE) != 0 ||
        !read_table(core, upper[KERNEL_MAP >> 30 & 511], upper)) {
        return;
    }
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        uint64_t virtual = KERNEL_MAP + ((uint64_t)i << 21);
        if ((upper[i] & ENTRY_PRESENT) != 0 && (upper[i] & ENTRY_LARGE) != 0) {
            add_view(core, virtual, upper[i] & ENTRY_ADDRESS & -(UINT64_C(1) << 21),
                     UINT64_C(1) << 21);
        } else if (read_table(core, upper[i], table)) {
            for (unsigned j = 0; j < TABLE_ENTRIES; j++) {
                if ((table[j] & ENTRY_PRESENT) != 0) {
                    add_view(core, virtual + j * PAGE, table[j] & ENTRY_ADDRESS, PAGE);
                }
            }
        }
    }
}

/* By the page tables of the vcpu that sees most of it: one in a program may see only an entry. */
static void plan_views(struct core *core)
{
    static struct core_view best[CORE_VIEWS];
    const struct hvm_hw_cpu *cpu;
    uint64_t most = 0;
    unsigned vcpu, views = 0;
    size_t next = 0;
    while ((cpu = core_next_cpu(core, &next, &vcpu)) != NULL) {
        uint64_t seen = 0;
        if ((cpu->cr0 & CR0_PAGING) == 0 || (cpu->msr_efer & EFER_LONG) == 0 ||
            (cpu->cr4 & CR4_LA57) != 0) {
            continue;
        }
        core->views = 0;
        view_kernel(core, cpu->cr3);
        for (unsigned i = 0; i < core->views; i++) {
            seen += core->view[i].size;
        }
        if (seen > most) {
            most = seen;
            core->cr3 = cpu->cr3;
            views = core->views;
            memcpy(best, core->view, views * sizeof(best[0]));
        }
    }
    core->views = views;
    memcpy(core->view, best, views * sizeof(best[0]));
}

/* --- VMCOREINFO --------------------------------------------------------------------------------
 */

/* Linux keeps a note for those who read its memory after a crash: its release, where it lies, sizes
 * and offsets (kernel/crash_core.c). It is filled while the kernel boots, begins a page, and its
 * pages are contiguous; a variable of the image points to it by the direct map. */
#define INFO_NAME "VMCOREINFO"
#define INFO_BEGINS "OSRELEASE="
#define KERNEL_HALF UINT64_C(0xffff800000000000)
#define PROBES 65536u /* pointers that are followed */

struct info_head {
    Elf64_Nhdr note;
    char name[12];
    char text[sizeof(INFO_BEGINS) - 1];
};
#define INFO_TEXT offsetof(struct info_head, text)

/* Where the kernel has `virtual` in memory. */
static bool translate(struct core *core, uint64_t virtual, uint64_t *at)
{
    uint64_t entry = core->cr3;
    for (unsigned shift = 39;; shift -= 9) {
        uint64_t slot = (entry & ENTRY_ADDRESS) + (virtual >> shift) % TABLE_ENTRIES * 8;
        if (cleave_read(core->cleave, core->domain, slot, &entry, sizeof(entry)) != 0 ||
            (entry & ENTRY_PRESENT) == 0) {
            return false;
        }
        if (shift == 12 || (shift < 39 && (entry & ENTRY_LARGE) != 0)) {
            uint64_t within = (UINT64_C(1) << shift) - 1;
            *at = (entry & ENTRY_ADDRESS & ~within) | (virtual & within);
            return true;
        }
    }
}

/* Takes the note that `pointer` points to, if it is the one. */
static bool take_info(struct core *core, uint64_t pointer)
{
    struct info_head head;
    uint64_t at;
    if (!translate(core, pointer, &at) ||
        cleave_read(core->cleave, core->domain, at, &head, sizeof(head)) != 0 ||
        head.note.n_namesz != sizeof(INFO_NAME) || head.note.n_type != 0 ||
        head.note.n_descsz < sizeof(head.text) || head.note.n_descsz > sizeof(core->info) ||
        memcmp(head.name, INFO_NAME, sizeof(INFO_NAME)) != 0 ||
        memcmp(head.text, INFO_BEGINS, sizeof(head.text)) != 0 ||
        cleave_read(core->cleave, core->domain, at + INFO_TEXT, core->info, head.note.n_descsz) !=
            0) {
        return false;
    }
    core->info_size = head.note.n_descsz;
    return true;
}

/* From its end on: what is not initialized lies there. */
static void find_info(struct core *core)
{
    static uint64_t word[PART / 8];
    const unsigned char *bytes;
    unsigned probes = 0;
    for (unsigned i = core->views; i-- != 0;) {
        const struct core_view *view = &core->view[i];
        for (uint64_t end = view->size, size; end != 0; end -= size) {
            size = end < PART ? end : PART;
            if (core_read_part(core, view->at + (end - size), size, &bytes) != 0) {
                return;
            }
            memcpy(word, bytes, size); /* the next call needs its place */
            for (unsigned j = 0; j < size / 8; j++) {
                if (word[j] % PAGE == 0 && word[j] >= KERNEL_HALF && word[j] < KERNEL_MAP &&
                    (probes++ == PROBES || take_info(core, word[j]))) {
                    return;
                }
            }
        }
    }
}

void core_plan_linux(struct core *core)
{
    plan_views(core);
    find_info(core);
}
