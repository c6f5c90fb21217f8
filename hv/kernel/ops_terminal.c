/* SPDX-License-Identifier: BSD-2-Clause */
/* What domains print, read from outside, and what is typed for them. */
#include "calls.h"
#include "guest.h"
#include "hypercall.h"
#include "terminal.h"

#define PART 256u
_Static_assert(TERMINAL_SIZE == CLEAVE_TERMINAL_KEPT, "as callers are told");

/* What was printed from the cursor on; bytes that are gone before the first of them are lost. */
static enum cleave_status read(struct call *call, struct cleave_terminal *terminal)
{
    char part[PART];
    uint64_t at = terminal->cursor, lost = 0;
    uint32_t done = 0;
    enum cleave_status status = CLEAVE_OK;

    while (done < terminal->size && status == CLEAVE_OK) {
        uint32_t room = terminal->size - done < PART ? terminal->size - done : PART;
        uint64_t from = at;
        uint32_t size = terminal_read_from(call->domain, &from, part, room);
        if (done == 0) {
            lost = from - at;
        }
        if (size == 0 || (done != 0 && from != at)) {
            break; /* what came in between is told by the next call */
        }
        status = guest_write(call->ctx, call->vcpu, terminal->buffer + done, part, size, "buffer");
        at = from + size;
        done += size;
    }
    terminal->cursor = at;
    terminal->lost = lost;
    terminal->size = done;
    return status;
}

static enum cleave_status type(struct call *call, struct cleave_terminal *terminal)
{
    struct domain *domain = call->domain;
    char bytes[XEN_INPUT_SIZE]; /* more it does not take */
    uint32_t size = terminal->size < sizeof(bytes) ? terminal->size : (uint32_t)sizeof(bytes);

    if (domain->snapshot) {
        return mm_fail(call->ctx, CLEAVE_FROZEN, "domain", domain->id, 1, 0);
    }
    if (domain->state == CLEAVE_STATE_ENDED) {
        return mm_fail(call->ctx, CLEAVE_DYING, "domain", domain->id, 1, 0);
    }
    if (!domain->has_window) {
        return mm_fail(call->ctx, CLEAVE_NOT_MAPPED, "domain", domain->id, 1, 0);
    }
    enum cleave_status status =
        guest_read(call->ctx, call->vcpu, terminal->buffer, bytes, size, "buffer");
    if (status == CLEAVE_OK) {
        terminal->size = xen_type(domain, bytes, size);
        terminal->lost = 0;
    }
    return status;
}

enum cleave_status op_terminal(struct call *call)
{
    struct cleave_terminal *terminal = &call->args.terminal;
    uint64_t end = terminal_written(call->domain);

    if (terminal->flags & ~CLEAVE_TERMINAL_TYPE) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "flags", terminal->flags, 0,
                       CLEAVE_TERMINAL_TYPE);
    }
    if (terminal->size == 0 || terminal->size > CLEAVE_TEXT_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "size", terminal->size, 1, CLEAVE_TEXT_MAX);
    }
    if (terminal->flags & CLEAVE_TERMINAL_TYPE) {
        return type(call, terminal);
    }
    if (terminal->cursor > end) {
        return mm_fail(call->ctx, CLEAVE_RANGE, "cursor", terminal->cursor, 0, end);
    }
    return read(call, terminal);
}
