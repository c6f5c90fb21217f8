/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens the hypervisor, makes calls, and says what was wrong with one. */
#include "handle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xencall.h>
#include <xentoollog.h>

#define PAGE 4096u
#define ARGUMENTS_PAGES 1u /* the largest structure is 1 KiB; behind it that of ERROR */
#define ERROR_AT 2048u
#define MEMORY_PAGES (ARGUMENTS_PAGES + CLEAVE_COPY_MAX / PAGE)
_Static_assert(sizeof(struct cleave_stat) <= ERROR_AT, "the arguments end before the error");

int fail_here(struct cleave_handle *cleave, int number, const char *format, ...)
{
    va_list list;
    memset(&cleave->error, 0, sizeof(cleave->error));
    va_start(list, format);
    vsnprintf(cleave->message, sizeof(cleave->message), format, list);
    va_end(list);
    return -number;
}

static int call_at(struct cleave_handle *cleave, enum cleave_op op, size_t at, size_t size)
{
    int status;
    do {
        status =
            xencall3(cleave->xencall, CLEAVE_HYPERCALL, op, (uintptr_t)(cleave->memory + at), size);
    } while (status == CLEAVE_AGAIN);
    return status < 0 ? -errno : status;
}

static int fail_unreached(struct cleave_handle *cleave, int number)
{
    if (number == ENOSYS) {
        return fail_here(cleave, number,
                         "the hypervisor does not know Cleave's hypercall: this is not Cleave");
    }
    return fail_here(cleave, number, "hypercall %u: %s", CLEAVE_HYPERCALL, strerror(number));
}

static void put_range(char *text, size_t room, const struct cleave_error *error)
{
    size_t used = strlen(text);
    if (error->low <= error->high && used < room) {
        snprintf(text + used, room - used, ", allowed are %" PRIu64 " to %" PRIu64, error->low,
                 error->high);
    }
}

/* Keeps why the hypervisor refused `op`. */
static int fail_refused(struct cleave_handle *cleave, enum cleave_op op, unsigned status)
{
    struct cleave_error *error = &cleave->error;
    struct cleave_error *found = (struct cleave_error *)(void *)(cleave->memory + ERROR_AT);

    memset(found, 0, sizeof(*found));
    bool told = call_at(cleave, CLEAVE_OP_ERROR, ERROR_AT, sizeof(*found)) == 0 &&
                found->status == status && found->operation == (uint32_t)op;
    if (told) {
        *error = *found;
        error->argument[sizeof(error->argument) - 1] = '\0';
    } else { /* of another process, which this vcpu ran in between */
        *error = (struct cleave_error){.status = status, .operation = (uint32_t)op, .low = 1};
    }
    if (status == CLEAVE_INVALID && strcmp(error->argument, "operation") == 0) {
        snprintf(cleave->message, sizeof(cleave->message),
                 "%s: the hypervisor does not know this operation (INVALID): it is older than this "
                 "program; use the tools that were built with it",
                 op_name((unsigned)op));
        return (int)status;
    }
    snprintf(cleave->message, sizeof(cleave->message), "%s: %s (%s", op_name((unsigned)op),
             status_text(status), cleave_status_name(status));
    size_t used = strlen(cleave->message), room = sizeof(cleave->message) - used;
    if (error->argument[0] != '\0' && strcmp(error->argument, "name") != 0) {
        snprintf(cleave->message + used, room, ": %s is %" PRIu64, error->argument, error->value);
        put_range(cleave->message, sizeof(cleave->message) - 1, error);
    } else if (error->argument[0] != '\0') {
        snprintf(cleave->message + used, room, ": %s", error->argument);
    }
    used = strlen(cleave->message);
    snprintf(cleave->message + used, sizeof(cleave->message) - used, ")");
    return (int)status;
}

int cleave_call(struct cleave_handle *cleave, enum cleave_op op, void *arguments, size_t size)
{
    if (size > ERROR_AT) {
        return fail_here(cleave, EINVAL, "operation %d: no structure has %zu bytes", (int)op, size);
    }
    memcpy(cleave->memory, arguments, size);
    int status = call_at(cleave, op, 0, size);
    if (status < 0) {
        return fail_unreached(cleave, -status);
    }
    if (status != CLEAVE_OK) {
        return fail_refused(cleave, op, (unsigned)status);
    }
    memcpy(arguments, cleave->memory, size);
    return 0;
}

void *cleave_buffer(struct cleave_handle *cleave)
{
    return cleave->memory + (size_t)ARGUMENTS_PAGES * PAGE;
}

const char *cleave_message(const struct cleave_handle *cleave) { return cleave->message; }

const struct cleave_error *cleave_last_error(const struct cleave_handle *cleave)
{
    return &cleave->error;
}

static int connect_handle(struct cleave_handle *cleave, unsigned flags)
{
    struct cleave_version version;

    cleave->logger =
        (struct xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    cleave->xencall = xencall_open(cleave->logger, 0);
    if (cleave->xencall == NULL) {
        return fail_here(
            cleave, errno,
            "/dev/xen/privcmd: %s. It takes root, the module xen-privcmd, and a domain "
            "that Cleave runs",
            strerror(errno));
    }
    cleave->memory = xencall_alloc_buffer_pages(cleave->xencall, MEMORY_PAGES);
    if (cleave->memory == NULL) {
        return fail_here(cleave, ENOMEM, "no memory for hypercalls: %s", strerror(errno));
    }
    memset(cleave->memory, 0, (size_t)MEMORY_PAGES * PAGE);
    int status = cleave_version(cleave, &version);
    if (status != 0) {
        return status;
    }
    cleave->self = version.domain;
    if (version.revision != CLEAVE_ABI_REVISION && !(flags & CLEAVE_OPEN_ANY_REVISION)) {
        return fail_here(cleave, EPROTO,
                         "the hypervisor speaks revision %u, this program revision %u: use the "
                         "tools that were built with the hypervisor",
                         version.revision, CLEAVE_ABI_REVISION);
    }
    return 0;
}

struct cleave_handle *cleave_open(unsigned flags, char *why)
{
    struct cleave_handle *cleave = calloc(1, sizeof(*cleave));
    if (cleave != NULL && connect_handle(cleave, flags) == 0) {
        return cleave;
    }
    if (why != NULL) {
        snprintf(why, CLEAVE_MESSAGE_SIZE, "%s", cleave != NULL ? cleave->message : "no memory");
    }
    cleave_close(cleave);
    return NULL;
}

void cleave_close(struct cleave_handle *cleave)
{
    if (cleave == NULL) {
        return;
    }
    if (cleave->memory != NULL) {
        xencall_free_buffer_pages(cleave->xencall, cleave->memory, MEMORY_PAGES);
    }
    if (cleave->xencall != NULL) {
        xencall_close(cleave->xencall);
    }
    if (cleave->logger != NULL) {
        xtl_logger_destroy(cleave->logger);
    }
    free(cleave);
}
