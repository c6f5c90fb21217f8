/* SPDX-License-Identifier: BSD-2-Clause */
/* An ELF core of a domain: its memory, and what lies where in the file; see core.h. */
#include "core_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* --- Layout ----------------------------------------------------------------------------------- */

/* An alignment of 0 is none: crash(8) takes a core with another one for netdump's, which has a
 * CPU's registers only where it crashed, and nothing of where its kernel lies. */
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
                        .p_memsz = end - at};
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
        sizeof(Elf64_Ehdr) + (uint64_t)segments * sizeof(Elf64_Phdr) + core_notes_size(core);
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
    int status = core_plan_vcpus(core, xc, why);
    if (status == 0) {
        status = plan_memory(core);
    }
    if (status == 0) {
        core_plan_linux(core);
        lay_out(core);
    }
    return status;
}

void core_free(struct core *core) { free(core->context); }

/* --- Writing ---------------------------------------------------------------------------------- */

void core_emit(struct core_writer *w, const void *bytes, size_t size)
{
    if (!w->stopped) {
        w->stopped = !w->sink(w->to, bytes, size);
        w->written += size;
    }
}

static void emit_headers(struct core *core, struct core_writer *w)
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
                        .p_filesz = core_notes_size(core),
                        .p_align = 4};
    static Elf64_Phdr some[CORE_PIECES];
    core_emit(w, &head, sizeof(head));
    core_emit(w, &notes, sizeof(notes));
    /* The kernel's first: what an address means to the domain comes before what it means here. */
    for (unsigned i = 0; i < core->views; i++) {
        unsigned count = view_segments(core, &core->view[i], some);
        core_emit(w, some, count * sizeof(some[0]));
    }
    for (unsigned i = 0; i < core->pieces; i++) {
        const struct core_piece *piece = &core->piece[i];
        some[i] = segment_of(piece->at, piece, piece->at, piece->at + piece->size);
    }
    core_emit(w, some, core->pieces * sizeof(some[0]));
}

/* The library's own buffer, without a copy, where nothing is missing. */
int core_read_part(struct core *core, uint64_t at, size_t size, const unsigned char **bytes)
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
    struct core_writer w = {.sink = sink, .to = to};
    int status = 0;
    emit_headers(core, &w);
    core_emit_notes(core, &w);
    core_emit(&w, zeros, core->size - core->memory - w.written);
    for (unsigned i = 0; i < core->pieces && status == 0 && !w.stopped; i++) {
        const struct core_piece *piece = &core->piece[i];
        for (uint64_t done = 0; done < piece->bytes && status == 0 && !w.stopped; done += PART) {
            uint64_t size = piece->bytes - done;
            size = size < PART ? size : PART;
            status = core_read_part(core, piece->at + done, size, &part);
            if (status == 0) {
                core_emit(&w, part, size);
            }
        }
    }
    return status == 0 && w.stopped ? -EIO : status;
}
