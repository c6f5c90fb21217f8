/* SPDX-License-Identifier: BSD-2-Clause */
/* Domains from boot modules, by the PVH boot protocol (Xen's public/arch-x86/hvm/start_info.h). */
#include "build.h"

#include "elf.h"
#include "sched.h"
#include "selftest.h"
#include "tenant.h"

#define START_INFO UINT64_C(0xf0000)
#define COMMAND_LINE (START_INFO + 0x400)
#define MEMORY_MAP (START_INFO + 0x800)
#define LOW_END UINT64_C(0xa0000)
#define HIGH_START UINT64_C(0x100000)
#define START_MAGIC 0x336ec578u

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "as the boot protocol says");
struct memory_entry {
    uint64_t at, size;
    uint32_t type, reserved;
};
_Static_assert(sizeof(struct memory_entry) == 24, "as the boot protocol says");

static const struct boot_module *module_named(const char *name)
{
    for (unsigned i = 0; i < boot_info.module_count; i++) {
        unsigned c = 0;
        while (name[c] != '\0' && boot_info.module[i].name[c] == name[c]) {
            c++;
        }
        if (name[c] == '\0' && boot_info.module[i].name[c] == '\0') {
            return &boot_info.module[i];
        }
    }
    return NULL;
}

static enum cleave_status put(struct mm_ctx *ctx, struct space *space, uint64_t at,
                              const void *bytes, uint64_t size)
{
    enum cleave_status status = CLEAVE_OK;
    for (uint64_t done = 0, part = 0; done < size && status == CLEAVE_OK; done += part) {
        uint64_t left = size - done < SPACE_ACCESS_MAX ? size - done : SPACE_ACCESS_MAX;
        status =
            space_write(ctx, space, gpa(at + done), (const char *)bytes + done, left, NULL, &part);
    }
    return status;
}

/* Kernel, start information, command line and memory map into the guest's memory. */
static enum cleave_status load(struct mm_ctx *ctx, struct space *space,
                               const struct config_domain *d, const struct boot_module *module,
                               const struct elf_kernel *kernel)
{
    const unsigned char *file = host_pointer(module->start);
    const struct start_info info = {.magic = START_MAGIC,
                                    .version = 1,
                                    .command_line = COMMAND_LINE,
                                    .memory_map = MEMORY_MAP,
                                    .memory_entries = 3};
    const struct memory_entry map[3] = {{0, LOW_END, 1, 0},
                                        {START_INFO, HIGH_START - START_INFO, 2, 0},
                                        {HIGH_START, d->memory - HIGH_START, 1, 0}};
    enum cleave_status status = put(ctx, space, START_INFO, &info, sizeof(info));
    if (status == CLEAVE_OK) {
        status = put(ctx, space, COMMAND_LINE, d->command, sizeof(d->command));
    }
    if (status == CLEAVE_OK) {
        status = put(ctx, space, MEMORY_MAP, map, sizeof(map));
    }
    for (unsigned i = 0; i < kernel->segments && status == CLEAVE_OK; i++) {
        const struct elf_segment *s = &kernel->segment[i];
        status = put(ctx, space, s->at, file + s->offset, s->file_size);
    }
    return status; /* what lies beyond file_size was zeroed on first touch */
}

static bool complain(struct mm_ctx *ctx, const char *name, const char *what)
{
    print("boot: domain %s: %s (%s %lu, from %lu to %lu)\n", name, what,
          ctx->error.argument != NULL ? ctx->error.argument : "", ctx->error.value, ctx->error.low,
          ctx->error.high);
    return false;
}

static bool build_domain(struct mm_ctx *ctx, const struct config_domain *d)
{
    const struct region ram = {
        .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = (uint8_t)d->order};
    const struct boot_module *module = module_named(d->kernel);
    struct elf_kernel kernel;
    struct space *space;
    struct domain *domain;
    struct hvm_state state;

    ctx->error = (struct mm_error){.low = 1};
    if (module == NULL) {
        return complain(ctx, d->name, "no module has the name of its kernel");
    }
    if (d->memory < 2 * HIGH_START) {
        return complain(ctx, d->name, "memory is below 2M");
    }
    const char *wrong =
        elf_read(host_pointer(module->start), module->end - module->start, d->memory, &kernel);
    if (wrong != NULL) {
        return complain(ctx, d->name, wrong);
    }
    for (unsigned i = 0; i < kernel.segments; i++) {
        const struct elf_segment *s = &kernel.segment[i];
        if (s->at < HIGH_START && s->at + s->memory_size > LOW_END) {
            return complain(ctx, d->name, "its kernel lies where start information and no RAM are");
        }
    }
    uint32_t id = domain_ids_take(1);
    uint64_t limit = d->limit == UINT64_MAX ? UINT64_MAX : d->limit >> PAGE_SHIFT;
    if (id == 0 || space_create(ctx, tenant_pool(d->pool), limit, &space) != CLEAVE_OK) {
        return complain(ctx, d->name, "no space");
    }
    if (space_set_region(ctx, space, gpa(0), d->memory, &ram) != CLEAVE_OK ||
        load(ctx, space, d, module, &kernel) != CLEAVE_OK) {
        return complain(ctx, d->name, "its kernel cannot be loaded");
    }
    if (domain_make(ctx, id, d->name, NULL, space, d->vcpus, false, &domain) != CLEAVE_OK ||
        !domain_enter(domain, true)) {
        return complain(ctx, d->name, "not made");
    }
    hvm_state_start(&state, kernel.entry, (uint32_t)START_INFO);
    hvm->vcpu_init(&domain->vcpu[0]->hvm, &state);
    domain->vcpu[0]->started = 1;
    print("boot: domain %u %s: %lu MiB, %u vcpus, kernel %s\n", id, d->name, d->memory >> 20,
          d->vcpus, d->kernel);
    if (d->paused) {
        domain->asked_pauses = 1;
        sched_pause(domain);
    }
    sched_start(domain->vcpu[0]);
    return true;
}

bool build_all(struct mm_ctx *ctx, struct config *config)
{
    const struct boot_module *module = module_named("boot.conf");
    struct config_error error;

    if (module == NULL) {
        print("boot: no module boot.conf: nothing to run\n");
        return false;
    }
    if (!config_parse(host_pointer(module->start), module->end - module->start, config, &error)) {
        print("boot.conf:%u: %s\n", error.line, error.what);
        return false;
    }
    for (unsigned i = 0; i < config->pools; i++) {
        if (tenant_make(ctx, config->pool[i].name, config->pool[i].size) != CLEAVE_OK) {
            print("boot: pool %s of %lu bytes: %s %lu, from %lu to %lu\n", config->pool[i].name,
                  config->pool[i].size, ctx->error.argument, ctx->error.value, ctx->error.low,
                  ctx->error.high);
            return false;
        }
    }
    struct pool *pool = NULL;
    if (boot_option("selftest") && tenant_at(0, &pool) != NULL && !selftest_run(ctx, pool)) {
        return false;
    }
    for (unsigned i = 0; i < config->domains; i++) {
        if (!build_domain(ctx, &config->domain[i])) {
            return false;
        }
    }
    return true;
}
