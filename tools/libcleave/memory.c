/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions on a domain's memory, and on what it costs. */
#include "handle.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PAGE 4096u

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

/* Where the entry that `lookup` tells of ends. */
static uint64_t end_of(const struct cleave_lookup *lookup)
{
    uint64_t size = (uint64_t)PAGE << 9 * (lookup->order < 4 ? lookup->order : 3);
    return (lookup->at | (size - 1)) + 1;
}

static int check_range(struct cleave_handle *cleave, uint64_t at, uint64_t end)
{
    if ((at | end) % PAGE == 0 && at <= end && end <= CLEAVE_MEMORY_END) {
        return 0;
    }
    return fail_here(cleave, EINVAL,
                     "from %#" PRIx64 " to %#" PRIx64 " are no pages of memory: multiples of 4 KiB "
                     "up to 2^48",
                     at, end);
}

int cleave_next_leaf(struct cleave_handle *cleave, uint32_t domain, uint64_t at, uint64_t end,
                     struct cleave_lookup *out)
{
    int status = check_range(cleave, at, end);
    *out = (struct cleave_lookup){.domain = domain};
    while (status == 0 && at < end) {
        status = cleave_lookup(cleave, domain, at, out);
        if (status != 0 || out->kind != 0) {
            return status;
        }
        at = end_of(out);
    }
    return status;
}

/* A page's contents; zeros where there is none. */
static int read_page(struct cleave_handle *cleave, const struct cleave_lookup *lookup, void *page)
{
    int status = cleave_read(cleave, lookup->domain, lookup->at, page, PAGE);
    if (status == CLEAVE_FAULT && lookup->kind == 0) {
        memset(page, 0, PAGE);
        status = 0;
    }
    return status;
}

/* How far the two are the same without a look at their contents: the address behind, or `at`. */
static uint64_t same_until(const struct cleave_lookup *a, const struct cleave_lookup *b)
{
    uint64_t ends = end_of(a) < end_of(b) ? end_of(a) : end_of(b);
    if (a->kind == 0 && b->kind == 0) {
        return ends;
    }
    return a->kind == 2 && b->kind == 2 && a->frame == b->frame ? ends : a->at;
}

int cleave_diff(struct cleave_handle *cleave, uint32_t first, uint32_t second, uint64_t at,
                uint64_t end, int (*differs)(void *context, uint64_t at), void *context)
{
    int status = check_range(cleave, at, end);
    while (status == 0 && at < end) {
        struct cleave_lookup a, b;
        unsigned char in_a[PAGE], in_b[PAGE];
        status = cleave_lookup(cleave, first, at, &a);
        if (status == 0) {
            status = cleave_lookup(cleave, second, at, &b);
        }
        if (status != 0) {
            break;
        }
        uint64_t same = same_until(&a, &b);
        if (same > at) {
            at = same;
            continue;
        }
        status = read_page(cleave, &a, in_a);
        if (status == 0) {
            status = read_page(cleave, &b, in_b);
        }
        if (status == 0 && memcmp(in_a, in_b, PAGE) != 0) {
            status = differs(context, at);
        }
        at += PAGE;
    }
    return status;
}
