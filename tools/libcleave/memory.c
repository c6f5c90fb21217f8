/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions on a domain's memory, and on what it costs. */
#include "handle.h"

#include <string.h>

int cleave_stat(struct cleave_handle *cleave, uint32_t domain, struct cleave_stat *out)
{
    memset(out, 0, sizeof(*out));
    out->domain = domain;
    int status = cleave_call(cleave, CLEAVE_OP_STAT, out, sizeof(*out));
    out->name[sizeof(out->name) - 1] = '\0';
    return status;
}

int cleave_audit(struct cleave_handle *cleave, struct cleave_audit *out)
{
    memset(out, 0, sizeof(*out));
    int status = cleave_call(cleave, CLEAVE_OP_AUDIT, out, sizeof(*out));
    out->what[sizeof(out->what) - 1] = '\0';
    return status;
}

int cleave_lookup(struct cleave_handle *cleave, uint32_t domain, uint64_t at,
                  struct cleave_lookup *out)
{
    *out = (struct cleave_lookup){.domain = domain, .at = at};
    return cleave_call(cleave, CLEAVE_OP_LOOKUP, out, sizeof(*out));
}

int cleave_read(struct cleave_handle *cleave, uint32_t domain, uint64_t at, void *buffer,
                size_t size)
{
    int status = 0;
    for (size_t done = 0, part; done < size && status == 0; done += part) {
        part = size - done < CLEAVE_COPY_MAX ? size - done : CLEAVE_COPY_MAX;
        struct cleave_copy copy = {.domain = domain,
                                   .at = at + done,
                                   .buffer = (uintptr_t)cleave_buffer(cleave),
                                   .size = part};
        status = cleave_call(cleave, CLEAVE_OP_COPY, &copy, sizeof(copy));
        if (status == 0) {
            memcpy((unsigned char *)buffer + done, cleave_buffer(cleave), part);
        }
    }
    return status;
}

int cleave_write(struct cleave_handle *cleave, uint32_t domain, uint64_t at, const void *buffer,
                 size_t size)
{
    int status = 0;
    for (size_t done = 0, part; done < size && status == 0; done += part) {
        part = size - done < CLEAVE_COPY_MAX ? size - done : CLEAVE_COPY_MAX;
        struct cleave_copy copy = {.domain = domain,
                                   .write = 1,
                                   .at = at + done,
                                   .buffer = (uintptr_t)cleave_buffer(cleave),
                                   .size = part};
        memcpy(cleave_buffer(cleave), (const unsigned char *)buffer + done, part);
        status = cleave_call(cleave, CLEAVE_OP_COPY, &copy, sizeof(copy));
    }
    return status;
}
