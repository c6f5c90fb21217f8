/* SPDX-License-Identifier: BSD-2-Clause */
/* An ELF core of a domain; see core.h. Records of a vcpu's state: Xen's arch-x86/hvm/save.h. */
#include "core.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <xen/hvm/save.h>

#define PAGE UINT64_C(4096)
#define PART ((size_t)CLEAVE_COPY_MAX)

/* --- Memory ----------------------------------------------------------------------------------- */

static void add_piece(struct core *core, uint64_t at, uint64_t size, bool bytes);

/* Writes larger gaps as zeros, until half of the table is free. */
static void coarsen(struct core *core)
{
    static struct core_piece old[CORE_PIECES];
    while (core->pieces > CORE_PIECES / 2) {
        unsigned count = core->pieces;
        core->slack = core->slack != 0 ? 2 * core->slack : PAGE;
        memcpy(old, core->piece, count * sizeof(old[0]));
        core->pieces = 0;
        for (unsigned i = 0; i < count; i++) {
            if (old[i].bytes != 0) {
                add_piece(core, old[i].at, old[i].bytes, true);
            }
            if (old[i].size != old[i].bytes) {
                add_piece(core, old[i].at + old[i].bytes, old[i].size - old[i].bytes, false);
            }
        }
    }
}

/* Memory behind all that was added before; without `bytes` it was never touched. */
static void add_piece(struct core *core, uint64_t at, uint64_t size, bool bytes)
{
    struct core_piece *last = core->pieces != 0 ? &core->piece[core->pieces - 1] : NULL;
    uint64_t end = last != NULL ? last->at + last->size : 0;
    if (last != NULL && !bytes && end == at) {
        last->size += size;
    } else if (last != NULL && bytes && at - (last->at + last->bytes) <= core->slack) {
        last->bytes = last->size = at + size - last->at;
    } else {
        if (core->pieces == CORE_PIECES) {
            coarsen(core);
        }
        core->piece[core->pieces++] =
            (struct core_piece){.at = at, .bytes = bytes ? size : 0, .size = size};
    }
}

/* Is there memory at `at`, touched or not? */
static int is_memory(struct core *core, uint64_t at, bool *is)
{
    uint64_t word;
    int status = cleave_read(core->cleave, core->domain, at, &word, sizeof(word));
    *is = status == 0;
    return status == CLEAVE_FAULT ? 0 : status;
}

/* How much of [at, end), which nothing maps, is memory that was never touched: from `*from` to
 * `*to`. Its two ends decide; where they differ, the one boundary is looked for. */
static int find_untouched(struct core *core, uint64_t at, uint64_t end, uint64_t *from,
                          uint64_t *to)
{
    bool first, last, there;
    int status = is_memory(core, at, &first);
    if (status == 0) {
        status = is_memory(core, end - PAGE, &last);
    }
    *from = *to = at;
    if (status != 0 || (!first && !last)) {
        return status;
    }
    *to = end;
    uint64_t low = at, high = end - PAGE; /* `low` is as the first page, `high` as the last */
    while (first != last && high - low > PAGE && status == 0) {
        uint64_t middle = low + (high - low) / 2 / PAGE * PAGE;
        status = is_memory(core, middle, &there);
        if (there == first) {
            low = middle;
        } else {
            high = middle;
        }
    }
    if (first != last) {
        *(first ? to : from) = high;
    }
    return status;
}

static int plan_memory(struct core *core)
{
    uint64_t at = 0;
    int status = 0;
    while (at < CLEAVE_MEMORY_END && status == 0) {
        struct cleave_lookup leaf;
        uint64_t from, to;
        status = cleave_lookup(core->cleave, core->domain, at, &leaf);
        if (status != 0) {
            break;
        }
        uint64_t end = (at | ((PAGE << 9 * leaf.order) - 1)) + 1;
        if (leaf.kind != 0) {
            add_piece(core, at, end - at, true);
        } else {
            status = find_untouched(core, at, end, &from, &to);
            if (status == 0 && from < to) {
                add_piece(core, from, to - from, false);
            }
        }
        at = end;
    }
    return status;
}

/* --- Vcpus ------------------------------------------------------------------------------------ */

/* The next CPU record from `*at` on; null at the end. */
static const struct hvm_hw_cpu *next_cpu(const struct core *core, size_t *at, unsigned *vcpu)
{
    while (*at + sizeof(struct hvm_save_descriptor) <= core->context_size) {
        struct hvm_save_descriptor record;
        memcpy(&record, core->context + *at, sizeof(record));
        const unsigned char *body = core->context + *at + sizeof(record);
        *at += sizeof(record) + record.length;
        if (*at > core->context_size) {
            return NULL;
        }
        if (record.typecode == HVM_SAVE_CODE(CPU) && record.length >= sizeof(struct hvm_hw_cpu)) {
            *vcpu = record.instance;
            return (const struct hvm_hw_cpu *)(const void *)body;
        }
    }
    return NULL;
}

static int plan_vcpus(struct core *core, xc_interface *xc, char *why)
{
    uint32_t domid = core->domain == CLEAVE_DOMAIN_CONTROL ? 0 : core->domain;
    unsigned vcpu;
    size_t at = 0;
    int size = xc_domain_hvm_getcontext(xc, domid, NULL, 0);
    core->context = size > 0 ? malloc((size_t)size) : NULL;
    if (core->context != NULL) {
        size = xc_domain_hvm_getcontext(xc, domid, core->context, (uint32_t)size);
    }
    if (size <= 0 || core->context == NULL) {
        snprintf(why, CLEAVE_MESSAGE_SIZE, "its vcpus cannot be read: %s", strerror(errno));
        return -EIO;
    }
    core->context_size = (size_t)size;
    while (next_cpu(core, &at, &vcpu) != NULL) {
        core->vcpus++;
    }
    return 0;
}

/* --- The kernel's own addresses ----------------------------------------------------------------
 */

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
    while ((cpu = next_cpu(core, &next, &vcpu)) != NULL) {
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
            views = core->views;
            memcpy(best, core->view, views * sizeof(best[0]));
        }
    }
    core->views = views;
    memcpy(core->view, best, views * sizeof(best[0]));
}

/* --- Layout ----------------------------------------------------------------------------------- */

static Elf64_Phdr segment_of(uint64_t virtual, const struct core_piece *piece, uint64_t at,
                             uint64_t end)
{
    uint64_t bytes = piece->at + piece->bytes;
    bytes = bytes < at ? 0 : (bytes < end ? bytes : end) - at;
    return (Elf64_Phdr){.p_type = PT_LOAD,
                        .p_flags = PF_R | PF_W | PF_X,
                        .p_offset = piece->offset + (at - piece->at),
                        .p_vaddr = virtual,
                        .p_paddr = at,
                        .p_filesz = bytes,
                        .p_memsz = end - at,
                        .p_align = PAGE};
}

/* Program headers of a view, as far as there is memory: to `out`, or only counted. */
static unsigned view_segments(const struct core *core, const struct core_view *view,
                              Elf64_Phdr *out)
{
    unsigned low = 0, high = core->pieces, count = 0;
    while (low < high) { /* the first piece that ends behind the view's beginning */
        unsigned middle = low + (high - low) / 2;
        if (core->piece[middle].at + core->piece[middle].size <= view->at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < core->pieces && core->piece[low].at < view->at + view->size; low++) {
        const struct core_piece *piece = &core->piece[low];
        uint64_t at = piece->at > view->at ? piece->at : view->at;
        uint64_t end = piece->at + piece->size;
        end = end < view->at + view->size ? end : view->at + view->size;
        if (out != NULL) {
            out[count] = segment_of(view->virtual + (at - view->at), piece, at, end);
        }
        count++;
    }
    return count;
}

#define NOTE_NAME "CORE"
#define NOTE_BYTES(type) (sizeof(Elf64_Nhdr) + 8 + sizeof(type)) /* all are multiples of 4 */

static size_t notes_size(const struct core *core)
{
    return NOTE_BYTES(struct elf_prpsinfo) + core->vcpus * NOTE_BYTES(struct elf_prstatus) +
           core->vcpus * NOTE_BYTES(elf_fpregset_t);
}

/* Of program headers, and where the pieces lie behind them. Views past what an ELF header can count
 * are left out. */
static unsigned lay_out(struct core *core)
{
    unsigned segments = 1 + core->pieces;
    for (unsigned i = 0; i < core->views; i++) {
        unsigned more = view_segments(core, &core->view[i], NULL);
        if (segments + more >= PN_XNUM) {
            core->views = i;
            break;
        }
        segments += more;
    }
    uint64_t offset =
        sizeof(Elf64_Ehdr) + (uint64_t)segments * sizeof(Elf64_Phdr) + notes_size(core);
    offset = (offset + PAGE - 1) & -PAGE;
    core->memory = 0;
    for (unsigned i = 0; i < core->pieces; i++) {
        core->piece[i].offset = offset + core->memory;
        core->memory += core->piece[i].bytes;
    }
    core->size = offset + core->memory;
    return segments;
}

int core_plan(struct core *core, struct cleave_handle *cleave, uint32_t domain, const char *name,
              xc_interface *xc, char *why)
{
    core->cleave = cleave;
    core->domain = domain;
    core->name = name;
    int status = plan_vcpus(core, xc, why);
    if (status == 0) {
        status = plan_memory(core);
    }
    if (status == 0) {
        plan_views(core);
        lay_out(core);
    }
    return status;
}

void core_free(struct core *core) { free(core->context); }

/* --- Writing ---------------------------------------------------------------------------------- */

struct writer {
    core_sink_t *sink;
    void *to;
    uint64_t written;
    bool stopped;
};

static void emit(struct writer *w, const void *bytes, size_t size)
{
    if (!w->stopped) {
        w->stopped = !w->sink(w->to, bytes, size);
        w->written += size;
    }
}

static void emit_headers(struct core *core, struct writer *w)
{
    unsigned segments = lay_out(core);
    Elf64_Ehdr head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                                   EV_CURRENT, ELFOSABI_NONE},
                       .e_type = ET_CORE,
                       .e_machine = EM_X86_64,
                       .e_version = EV_CURRENT,
                       .e_phoff = sizeof(head),
                       .e_ehsize = sizeof(head),
                       .e_phentsize = sizeof(Elf64_Phdr),
                       .e_phnum = (Elf64_Half)segments};
    Elf64_Phdr notes = {.p_type = PT_NOTE,
                        .p_offset = sizeof(head) + (uint64_t)segments * sizeof(Elf64_Phdr),
                        .p_filesz = notes_size(core),
                        .p_align = 4};
    static Elf64_Phdr some[CORE_PIECES];
    emit(w, &head, sizeof(head));
    emit(w, &notes, sizeof(notes));
    /* The kernel's first: what an address means to the domain comes before what it means here. */
    for (unsigned i = 0; i < core->views; i++) {
        unsigned count = view_segments(core, &core->view[i], some);
        emit(w, some, count * sizeof(some[0]));
    }
    for (unsigned i = 0; i < core->pieces; i++) {
        const struct core_piece *piece = &core->piece[i];
        some[i] = segment_of(piece->at, piece, piece->at, piece->at + piece->size);
    }
    emit(w, some, core->pieces * sizeof(some[0]));
}

static void emit_note(struct writer *w, uint32_t type, const void *bytes, size_t size)
{
    const char name[8] = NOTE_NAME;
    const Elf64_Nhdr head = {sizeof(NOTE_NAME), (Elf64_Word)size, type};
    emit(w, &head, sizeof(head));
    emit(w, name, sizeof(name));
    emit(w, bytes, size);
}

static struct elf_prstatus status_of(const struct hvm_hw_cpu *cpu, unsigned vcpu)
{
    struct elf_prstatus status = {.pr_pid = (pid_t)vcpu + 1, .pr_fpvalid = 1};
    const struct user_regs_struct regs = {.r15 = cpu->r15,
                                          .r14 = cpu->r14,
                                          .r13 = cpu->r13,
                                          .r12 = cpu->r12,
                                          .rbp = cpu->rbp,
                                          .rbx = cpu->rbx,
                                          .r11 = cpu->r11,
                                          .r10 = cpu->r10,
                                          .r9 = cpu->r9,
                                          .r8 = cpu->r8,
                                          .rax = cpu->rax,
                                          .rcx = cpu->rcx,
                                          .rdx = cpu->rdx,
                                          .rsi = cpu->rsi,
                                          .rdi = cpu->rdi,
                                          .orig_rax = UINT64_MAX, /* in no system call */
                                          .rip = cpu->rip,
                                          .cs = cpu->cs_sel,
                                          .eflags = cpu->rflags,
                                          .rsp = cpu->rsp,
                                          .ss = cpu->ss_sel,
                                          .fs_base = cpu->fs_base,
                                          .gs_base = cpu->gs_base,
                                          .ds = cpu->ds_sel,
                                          .es = cpu->es_sel,
                                          .fs = cpu->fs_sel,
                                          .gs = cpu->gs_sel};
    _Static_assert(sizeof(regs) == sizeof(status.pr_reg), "the registers of a status");
    memcpy(&status.pr_reg, &regs, sizeof(regs));
    return status;
}

static void emit_notes(struct core *core, struct writer *w)
{
    const struct hvm_hw_cpu *cpu;
    struct elf_prpsinfo info = {.pr_sname = 'R', .pr_pid = 1};
    unsigned vcpu;
    size_t next = 0;
    snprintf(info.pr_fname, sizeof(info.pr_fname), "%s", core->name);
    snprintf(info.pr_psargs, sizeof(info.pr_psargs), "domain %u %s", core->domain, core->name);
    emit_note(w, NT_PRPSINFO, &info, sizeof(info));
    while ((cpu = next_cpu(core, &next, &vcpu)) != NULL) {
        struct elf_prstatus status = status_of(cpu, vcpu);
        emit_note(w, NT_PRSTATUS, &status, sizeof(status));
        emit_note(w, NT_FPREGSET, cpu->fpu_regs, sizeof(cpu->fpu_regs));
    }
}

/* Where the bytes are, until the next call: the library's own buffer, without a copy, where nothing
 * is missing. Pages that went meanwhile, or lie in a gap that was filled, are zeros. */
static int read_part(struct core *core, uint64_t at, size_t size, const unsigned char **bytes)
{
    static unsigned char part[CLEAVE_COPY_MAX];
    struct cleave_copy copy = {.domain = core->domain,
                               .at = at,
                               .buffer = (uintptr_t)cleave_buffer(core->cleave),
                               .size = size};
    int status = cleave_call(core->cleave, CLEAVE_OP_COPY, &copy, sizeof(copy));
    *bytes = status == 0 ? cleave_buffer(core->cleave) : part;
    for (size_t done = 0; status == CLEAVE_FAULT && done < size; done += PAGE) {
        int one = cleave_read(core->cleave, core->domain, at + done, part + done, PAGE);
        if (one == CLEAVE_FAULT) {
            memset(part + done, 0, PAGE);
        }
        status = one == 0 || one == CLEAVE_FAULT ? CLEAVE_FAULT : one;
    }
    return status == CLEAVE_FAULT ? 0 : status;
}

int core_write(struct core *core, core_sink_t *sink, void *to)
{
    static const unsigned char zeros[PAGE];
    const unsigned char *part;
    struct writer w = {.sink = sink, .to = to};
    int status = 0;
    emit_headers(core, &w);
    emit_notes(core, &w);
    emit(&w, zeros, core->size - core->memory - w.written);
    for (unsigned i = 0; i < core->pieces && status == 0 && !w.stopped; i++) {
        const struct core_piece *piece = &core->piece[i];
        for (uint64_t done = 0; done < piece->bytes && status == 0 && !w.stopped; done += PART) {
            uint64_t size = piece->bytes - done;
            size = size < PART ? size : PART;
            status = read_part(core, piece->at + done, size, &part);
            if (status == 0) {
                emit(&w, part, size);
            }
        }
    }
    return status == 0 && w.stopped ? -EIO : status;
}
