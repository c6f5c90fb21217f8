/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hypervisor for the command in the place of libxencall, to see what it says where a real one
 * does not fit. The variable FAKE says which: "revision" speaks another revision, "old" does not
 * know LIST, "xen" does not know Cleave's call, "again" has to be called three times, "stranger"
 * tells of another call's error, "memory" and "open" refuse to begin; "console" has a domain 5 that
 * prints what is typed, 3 bytes at a time; "mapped" has one domain, with memory of every kind and a
 * name that no domain can have, and takes SLOW microseconds more for each page; "slow" takes longer
 * than a second for each call, and has an audit. Without, VERSION is answered and every other
 * operation refused.
 */
#include "cleave/abi.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xencall.h>
#include <xentoollog.h>

static struct cleave_error last;

static bool is(const char *what)
{
    const char *fake = getenv("FAKE");
    return fake != NULL && strcmp(fake, what) == 0;
}

xentoollog_logger_stdiostream *xtl_createlogger_stdiostream(FILE *f, xentoollog_level level,
                                                            unsigned flags)
{
    (void)f;
    (void)level;
    (void)flags;
    return NULL;
}

void xtl_logger_destroy(struct xentoollog_logger *logger) { (void)logger; }

xencall_handle *xencall_open(struct xentoollog_logger *logger, unsigned flags)
{
    (void)logger;
    (void)flags;
    errno = EACCES;
    return is("open") ? NULL : (xencall_handle *)&last;
}

int xencall_close(xencall_handle *handle)
{
    (void)handle;
    return 0;
}

void *xencall_alloc_buffer_pages(xencall_handle *handle, size_t pages)
{
    (void)handle;
    errno = ENOMEM;
    return is("memory") ? NULL : calloc(pages, 4096);
}

void xencall_free_buffer_pages(xencall_handle *handle, void *memory, size_t pages)
{
    (void)handle;
    (void)pages;
    free(memory);
}

static int refuse(uint64_t op, enum cleave_status status, const char *argument, uint64_t value)
{
    last = (struct cleave_error){
        .status = status, .operation = (uint32_t)op, .value = value, .high = CLEAVE_OP_LIST - 1};
    snprintf(last.argument, sizeof(last.argument), "%s", argument);
    return (int)status;
}

/* Domain 5, which ends by the character 'Q'. */
static int console(uint64_t op, void *arguments)
{
    static char printed[256] = "ready: ";
    static uint64_t size = 7;
    struct cleave_list *list = arguments;
    struct cleave_terminal *terminal = arguments;

    if (op == CLEAVE_OP_LIST) {
        bool ended = memchr(printed, 'Q', size) != NULL;
        *list = (struct cleave_list){.domain = list->domain < 5 ? 5 : 0,
                                     .state = ended ? CLEAVE_STATE_ENDED : CLEAVE_STATE_RUNNING,
                                     .reason = ended ? CLEAVE_POWERED_OFF : 0,
                                     .name = "guest"};
        return CLEAVE_OK;
    }
    char *buffer = (char *)(uintptr_t)terminal->buffer;
    if (terminal->flags & CLEAVE_TERMINAL_TYPE) {
        terminal->size = terminal->size < 3 ? terminal->size : 3;
        memcpy(printed + size, buffer, terminal->size);
        size += terminal->size;
        return CLEAVE_OK;
    }
    terminal->size = (uint32_t)(size - terminal->cursor);
    memcpy(buffer, printed + terminal->cursor, terminal->size);
    terminal->cursor = size;
    terminal->lost = 0;
    return CLEAVE_OK;
}

#define MIB (UINT64_C(1) << 20)

/* 2 MiB by a large leaf, 2 MiB by small ones, of which every second is its own, 1 GiB shared, a
 * page that is not loaded. */
static void look_up(struct cleave_lookup *lookup)
{
    uint64_t at = lookup->at;
    lookup->kind = at < 4 * MIB || (at >= 1024 * MIB && at < 2048 * MIB) ? 2 : 0;
    lookup->order = at < 2 * MIB ? 1 : at < 4 * MIB ? 0 : at < 1024 * MIB ? 1 : 2;
    lookup->exclusive = at < 2 * MIB || (at < 4 * MIB && at / 4096 % 2 != 0);
    lookup->rights = 7;
    if (at >= 4096 * MIB && at < 4096 * MIB + 4096) {
        lookup->kind = 3;
    }
    if (at >= 4096 * MIB && at < 4098 * MIB) {
        lookup->order = 0;
    } else if (at >= 512 * 1024 * MIB) {
        lookup->order = 3;
    }
}

static int answer(uint64_t op, void *arguments)
{
    struct cleave_list *list = arguments;
    if (op == CLEAVE_OP_LOOKUP) {
        const char *slow = getenv("SLOW");
        if (slow != NULL) {
            usleep((useconds_t)atoi(slow));
        }
        look_up(arguments);
    } else if (op == CLEAVE_OP_CREATE_IN) {
        struct cleave_create_in *create = arguments;
        create->domain = 100 * create->pool + 10 * create->vcpus + (uint32_t)(create->limit / MIB);
        return strcmp(create->name, "new") == 0 && create->reserved == 0 ? CLEAVE_OK
                                                                         : CLEAVE_INVALID;
    } else if (op == CLEAVE_OP_FORK) {
        const struct cleave_fork *fork = arguments;
        return fork->reserve % 4096 != 0           ? CLEAVE_ALIGN
               : fork->reserve / 4096 > UINT32_MAX ? CLEAVE_COUNT
               : fork->reserve != fork->limit      ? CLEAVE_RESERVE
                                                   : CLEAVE_OK;
    } else if (op == CLEAVE_OP_STAT) {
        struct cleave_stat *stat = arguments;
        *stat = (struct cleave_stat){.domain = 9,
                                     .state = CLEAVE_STATE_STARVED,
                                     .faults = 123456,
                                     .copied = 3 * MIB / 2,
                                     .exclusive = 2 * MIB,
                                     .shared = 6 * MIB,
                                     .mapped = {6 * MIB, 2 * MIB, 0},
                                     .pool_size = 4096 * MIB};
    } else if (op == CLEAVE_OP_LIST) {
        *list = list->domain < 9 ? (struct cleave_list){.domain = 9,
                                                        .state = CLEAVE_STATE_RUNNING,
                                                        .vcpus = 1,
                                                        .name = "a<b&\"c>"}
                                 : (struct cleave_list){.domain = 0};
    }
    return CLEAVE_OK;
}

int xencall3(xencall_handle *handle, unsigned call, uint64_t op, uint64_t at, uint64_t size)
{
    static unsigned calls;
    void *arguments = (void *)(uintptr_t)at;
    (void)handle;
    errno = ENOSYS;
    if (call != CLEAVE_HYPERCALL || is("xen")) {
        return -1;
    }
    if (is("again") && ++calls % 3 != 0) {
        return CLEAVE_AGAIN;
    }
    if (op == CLEAVE_OP_VERSION && size == sizeof(struct cleave_version)) {
        struct cleave_version *version = arguments;
        *version = (struct cleave_version){.revision = CLEAVE_ABI_REVISION + is("revision"),
                                           .operations = CLEAVE_OPS,
                                           .domain = 7,
                                           .machine = "fake"};
        return CLEAVE_OK;
    }
    if (op == CLEAVE_OP_ERROR && size == sizeof(last)) {
        last.operation += is("stranger");
        memcpy(arguments, &last, sizeof(last));
        return CLEAVE_OK;
    }
    if (is("slow")) {
        usleep(1300000);
        return op == CLEAVE_OP_AUDIT ? CLEAVE_OK : refuse(op, CLEAVE_DENIED, "nothing", 5);
    }
    if (is("console") && (op == CLEAVE_OP_LIST || op == CLEAVE_OP_TERMINAL)) {
        return console(op, arguments);
    }
    if (is("mapped") && (op == CLEAVE_OP_LIST || op == CLEAVE_OP_LOOKUP || op == CLEAVE_OP_STAT ||
                         op == CLEAVE_OP_CREATE_IN || op == CLEAVE_OP_FORK)) {
        return answer(op, arguments);
    }
    return is("old") ? refuse(op, CLEAVE_INVALID, "operation", op)
                     : refuse(op, CLEAVE_DENIED, "nothing", 5);
}
