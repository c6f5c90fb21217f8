/* SPDX-License-Identifier: BSD-2-Clause */
/* What domains print, and what is typed for them. */
#include "handle.h"

#include <string.h>

static int call(struct cleave_handle *cleave, struct cleave_terminal *terminal)
{
    terminal->buffer = (uintptr_t)cleave_buffer(cleave);
    return cleave_call(cleave, CLEAVE_OP_TERMINAL, terminal, sizeof(*terminal));
}

int cleave_terminal_read(struct cleave_handle *cleave, uint32_t domain, uint64_t *cursor,
                         void *buffer, size_t *size, uint64_t *lost)
{
    struct cleave_terminal terminal = {
        .domain = domain,
        .cursor = *cursor,
        .size = (uint32_t)(*size < CLEAVE_TEXT_MAX ? *size : CLEAVE_TEXT_MAX)};
    int status = call(cleave, &terminal);
    if (status == 0) {
        memcpy(buffer, cleave_buffer(cleave), terminal.size);
        *cursor = terminal.cursor;
        *size = terminal.size;
        *lost = terminal.lost;
    }
    return status;
}

int cleave_terminal_type(struct cleave_handle *cleave, uint32_t domain, const void *bytes,
                         size_t *size)
{
    struct cleave_terminal terminal = {
        .domain = domain,
        .flags = CLEAVE_TERMINAL_TYPE,
        .size = (uint32_t)(*size < CLEAVE_TEXT_MAX ? *size : CLEAVE_TEXT_MAX)};
    memcpy(cleave_buffer(cleave), bytes, terminal.size);
    int status = call(cleave, &terminal);
    if (status == 0) {
        *size = terminal.size;
    }
    return status;
}
