/* SPDX-License-Identifier: BSD-2-Clause */
/* Builds a guest: what the hypervisor's boot builder does for a domain of its configuration, done
 * by calls. Layout and tables are the hypervisor's own source (pvh.c, elf.c, guest_acpi.c). */
#include "handle.h"

#include "guest_acpi.h"
#include "pvh.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)
#define PART (UINT64_C(1) << 20) /* bytes that are loaded between two looks at progress */
#define PRIVATE 1u               /* policy */
#define RIGHTS 7u                /* read, write, execute */
#define LARGEST 2u               /* leaves of 1 GiB, where the pool has blocks for them */
/* What is to be free beside a guest's memory, for tables and objects: that part of it, and so many
 * bytes. A pool that is filled up would stop this domain, too. */
#define BESIDE 256u
#define BESIDE_LEAST (UINT64_C(1) << 20)

struct build {
    struct cleave_handle *cleave;
    const struct cleave_create_options *options;
    struct pvh_guest guest;
    uint32_t domain;
    uint32_t pool;      /* its number; 0: the caller's own */
    uint64_t done, all; /* bytes zeroed and loaded */
};

/* Says which argument the failure is about. */
static int blame(struct cleave_handle *cleave, int status, const char *argument)
{
    char message[CLEAVE_MESSAGE_SIZE];
    if (status != 0) {
        snprintf(message, sizeof(message), "%s: %.*s", argument, (int)(sizeof(message) - 64),
                 cleave->message);
        memcpy(cleave->message, message, sizeof(message));
    }
    return status;
}

static int advance(struct build *build, uint64_t bytes)
{
    const struct cleave_create_options *o = build->options;
    build->done += bytes;
    if (o->progress != NULL && o->progress(o->context, build->done, build->all) != 0) {
        return fail_here(build->cleave, ECANCELED, "create: stopped; nothing is left of it");
    }
    return 0;
}

static int load(struct build *build, uint64_t at, const void *bytes, uint64_t size)
{
    int status = 0;
    for (uint64_t done = 0, part; done < size && status == 0; done += part) {
        part = size - done < PART ? size - done : PART;
        status = cleave_write(build->cleave, build->domain, at + done, (const char *)bytes + done,
                              (size_t)part);
        if (status == 0) {
            status = advance(build, part);
        }
    }
    return status;
}

/* In pieces of 1 GiB, so that it can be stopped between them. */
static int add_memory(struct build *build, uint64_t at, uint64_t size)
{
    int status = 0;
    for (uint64_t end = at + size, part; at < end && status == 0; at += part) {
        part = end - at < GIB ? end - at : GIB;
        struct cleave_map map = {.domain = build->domain,
                                 .policy = PRIVATE,
                                 .rights = RIGHTS,
                                 .order = LARGEST,
                                 .at = at,
                                 .size = part,
                                 .flags = CLEAVE_MAP_POPULATE};
        status = blame(build->cleave, cleave_call(build->cleave, CLEAVE_OP_MAP, &map, sizeof(map)),
                       "memory");
        if (status == 0) {
            status = advance(build, part);
        }
    }
    return status;
}

/* What tells the guest where everything lies, and then, as they may cover it, its own bytes. */
static int load_all(struct build *build)
{
    const struct cleave_create_options *o = build->options;
    const struct pvh_guest *guest = &build->guest;
    uint8_t page[PVH_PAGE_SIZE];

    pvh_start_page(page, guest, o->command_line != NULL ? o->command_line : "", false);
    int status = load(build, PVH_START_INFO, page, sizeof(page));
    if (status == 0) {
        guest_acpi(page, (uint32_t)PVH_ACPI_TABLES, o->vcpus);
        status = load(build, PVH_ACPI_TABLES, page, GUEST_ACPI_SIZE);
    }
    for (unsigned i = 0; i < guest->kernel.segments && status == 0; i++) {
        const struct elf_segment *s = &guest->kernel.segment[i];
        status = load(build, s->at, (const char *)o->kernel + s->offset, s->file_size);
    }
    return status == 0 ? load(build, guest->initrd, o->initrd, guest->initrd_size) : status;
}

static int make_domain(struct build *build)
{
    const struct cleave_create_options *o = build->options;
    struct cleave_create create = {.limit = UINT64_MAX, .vcpus = o->vcpus};

    if (o->name != NULL) {
        memcpy(create.name, o->name, strlen(o->name) + 1);
    }
    if (build->pool != 0) {
        return cleave_create_in(build->cleave, build->pool, o->name, o->vcpus, UINT64_MAX,
                                &build->domain);
    }
    int status = cleave_call(build->cleave, CLEAVE_OP_CREATE, &create, sizeof(create));
    if (status != 0) {
        return status > 0 ? explain_name(build->cleave, status, create.name) : status;
    }
    build->domain = create.domain;
    return 0;
}

static int fill_domain(struct build *build)
{
    struct cleave_handle *cleave = build->cleave;
    const struct cleave_create_options *o = build->options;
    struct cleave_window window = {.domain = build->domain, .memory = o->memory};
    struct cleave_start start = {.domain = build->domain,
                                 .entry = build->guest.kernel.entry,
                                 .argument = (uint32_t)PVH_START_INFO};
    int status = cleave_pause(cleave, build->domain);
    if (status == 0) {
        status = add_memory(build, 0, build->guest.low);
    }
    if (status == 0) {
        status = add_memory(build, PVH_FAR_START, build->guest.far);
    }
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_WINDOW, &window, sizeof(window));
    }
    if (status == 0) {
        status = load_all(build);
    }
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_START, &start, sizeof(start));
    }
    return status == 0 && !(o->flags & CLEAVE_CREATE_PAUSED) ? cleave_unpause(cleave, build->domain)
                                                             : status;
}

/* The pool that is asked for, and what is free there. */
static int find_pool(struct build *build, uint64_t *there)
{
    const char *name = build->options->pool;
    struct cleave_pool_list *all;
    struct cleave_stat stat;
    size_t count;

    if (name == NULL) {
        int status = cleave_stat(build->cleave, CLEAVE_DOMAIN_SELF, &stat);
        *there = stat.pool_free - stat.pool_reserved;
        return status;
    }
    int status = cleave_pool_list(build->cleave, &all, &count, NULL);
    if (status != 0) {
        return blame(build->cleave, status, "pool");
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(all[i].name, name) == 0) {
            build->pool = all[i].number;
            *there = all[i].free - all[i].promised;
        }
    }
    free(all);
    if (build->pool == 0) {
        fail_here(build->cleave, 0, "pool: there is none named \"%s\" (NOT_MAPPED)", name);
        return CLEAVE_NOT_MAPPED;
    }
    return 0;
}

/* What can be said without making anything. */
static int check(struct build *build)
{
    struct cleave_handle *cleave = build->cleave;
    const struct cleave_create_options *o = build->options;
    uint64_t there = 0;

    if (o->flags & ~CLEAVE_CREATE_PAUSED) {
        return fail_here(cleave, EINVAL, "flags: %#x are not known", o->flags);
    }
    if (o->name != NULL && (o->name[0] == '\0' || strlen(o->name) >= CLEAVE_NAME_SIZE)) {
        return fail_here(cleave, EINVAL, "name: it has 1 to %u characters, this one has %zu",
                         CLEAVE_NAME_SIZE - 1, strlen(o->name));
    }
    if (o->command_line != NULL && strlen(o->command_line) > PVH_COMMAND_MAX) {
        return fail_here(cleave, EINVAL,
                         "command line: it has at most %u characters, this one has %zu",
                         PVH_COMMAND_MAX, strlen(o->command_line));
    }
    if (o->vcpus == 0 || o->vcpus > CLEAVE_VCPUS_MAX) {
        return fail_here(cleave, EINVAL, "vcpus: a domain has 1 to %u, not %" PRIu32,
                         CLEAVE_VCPUS_MAX, o->vcpus);
    }
    if (o->memory < PVH_MEMORY_MIN || o->memory % PVH_PAGE_SIZE != 0 ||
        o->memory > CLEAVE_MEMORY_END - PVH_FAR_START) {
        return fail_here(cleave, EINVAL,
                         "memory: a multiple of 4 KiB, at least 2 MiB, not %" PRIu64 " bytes",
                         o->memory);
    }
    const char *wrong =
        pvh_plan(o->kernel, o->kernel_size, o->initrd_size, o->memory, &build->guest);
    if (wrong != NULL) {
        return fail_here(cleave, EINVAL, "%s: %s (memory is %" PRIu64 " KiB)",
                         build->guest.initrd != 0 ? "initrd" : "kernel", wrong, o->memory >> 10);
    }
    int status = find_pool(build, &there);
    if (status == 0 && o->memory + o->memory / BESIDE + BESIDE_LEAST > there) {
        fail_here(cleave, 0,
                  "memory: %" PRIu64 " KiB, and what tables take, are more than the %" PRIu64
                  " that are free in the pool (NO_MEMORY)",
                  o->memory >> 10, there >> 10);
        status = CLEAVE_NO_MEMORY;
    }
    return status;
}

int cleave_create(struct cleave_handle *cleave, const struct cleave_create_options *options,
                  uint32_t *domain)
{
    struct build build = {.cleave = cleave, .options = options};
    int status = check(&build);
    if (status == 0) {
        build.all = options->memory + build.guest.initrd_size + PVH_PAGE_SIZE + GUEST_ACPI_SIZE;
        for (unsigned i = 0; i < build.guest.kernel.segments; i++) {
            build.all += build.guest.kernel.segment[i].file_size;
        }
        status = advance(&build, 0);
    }
    if (status == 0) {
        status = make_domain(&build);
    }
    if (status != 0) {
        return status;
    }
    status = fill_domain(&build);
    if (status != 0) {
        char message[CLEAVE_MESSAGE_SIZE];
        struct cleave_error error = cleave->error;
        memcpy(message, cleave->message, sizeof(message));
        if (cleave_destroy(cleave, build.domain) == 0) {
            memcpy(cleave->message, message, sizeof(message));
        } else {
            blame(cleave, status, "create failed, and what is left of it cannot be destroyed");
        }
        cleave->error = error;
        return status;
    }
    if (domain != NULL) {
        *domain = build.domain;
    }
    return 0;
}
