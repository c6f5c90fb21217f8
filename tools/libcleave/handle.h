/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the library share: the handle, and how a failure is kept. */
#ifndef LIBCLEAVE_HANDLE_H
#define LIBCLEAVE_HANDLE_H

#include "cleave.h"

#include <stdbool.h>

struct xencall_handle;
struct xentoollog_logger;

struct cleave_handle {
    struct xencall_handle *xencall;
    struct xentoollog_logger *logger;
    unsigned char *memory; /* MEMORY_PAGES that stay where the hypervisor finds them */
    uint32_t self;         /* the caller's domain */
    struct cleave_error error;
    char message[CLEAVE_MESSAGE_SIZE];
};

/* Keeps a failure that is not the hypervisor's; returns -number. */
int fail_here(struct cleave_handle *cleave, int number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A name that was refused: says the rule; returns `status`. */
int explain_name(struct cleave_handle *cleave, int status, const char *name);
/* The operation's name in lower case. */
const char *op_name(unsigned op);
/* What is wrong and what to do, for each status. */
const char *status_text(unsigned status);

#endif
