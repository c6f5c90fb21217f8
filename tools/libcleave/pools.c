/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions on pools. */
#include "handle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

static int put_name(struct cleave_handle *cleave, char to[CLEAVE_POOL_NAME_SIZE], const char *name)
{
    size_t length = strlen(name);
    if (length >= CLEAVE_POOL_NAME_SIZE) {
        return fail_here(cleave, EINVAL, "a pool's name has 1 to %u characters, this one has %zu",
                         CLEAVE_POOL_NAME_SIZE - 1, length);
    }
    memcpy(to, name, length + 1);
    return 0;
}

/* How far a pool can be resized now: sizes of pools are multiples of 2 MiB. */
static void explain_size(struct cleave_handle *cleave, int status, const char *name)
{
    uint64_t low = cleave->error.low / MIB, high = cleave->error.high / MIB;
    if (status == CLEAVE_NO_MEMORY) {
        fail_here(cleave, 0,
                  "the pool \"%s\" can have %" PRIu64
                  "M at most (NO_MEMORY): what lies behind that "
                  "is no memory, or another pool's, which would have to be deleted first",
                  name, high);
    } else if (status == CLEAVE_BUSY) {
        fail_here(cleave, 0,
                  "the pool \"%s\" must have %" PRIu64 "M at least (BUSY): up to there its memory "
                  "is in use or reserved, until domains in it are destroyed",
                  name, low);
    }
}

/* What a user can do about it is more of a help than the argument's value. */
static int explain(struct cleave_handle *cleave, int status, const char *name)
{
    struct cleave_error error = cleave->error;
    bool named = strcmp(error.argument, "name") == 0;
    if (status == CLEAVE_NOT_MAPPED && named) {
        fail_here(cleave, 0,
                  "there is no pool \"%s\" (NOT_MAPPED): \"cleave pool list\" shows those that "
                  "there are",
                  name);
    } else if (status == CLEAVE_EXISTS && named) {
        fail_here(cleave, 0, "a pool \"%s\" is there already (EXISTS)", name);
    } else if (status == CLEAVE_INVALID && named) {
        fail_here(cleave, 0,
                  "\"%s\" is no name (INVALID): 1 to %u of letters, digits, '-', '_' and '.', not "
                  "beginning with \"fork-\" or \"domain-\"",
                  name, CLEAVE_POOL_NAME_SIZE - 1);
    } else if (status == CLEAVE_DYING && named) {
        fail_here(cleave, 0, "the pool \"%s\" is being deleted (DYING)", name);
    } else if (error.operation == CLEAVE_OP_POOL_CREATE && status == CLEAVE_NO_MEMORY) {
        fail_here(cleave, 0,
                  "a pool can have %" PRIu64 "M at most (NO_MEMORY): no more lies in one piece "
                  "outside of the pools that there are",
                  error.high / MIB);
    } else if (error.operation == CLEAVE_OP_POOL_RESIZE && strcmp(error.argument, "size") == 0) {
        explain_size(cleave, status, name);
    } else if (status == CLEAVE_BUSY) {
        fail_here(cleave, 0,
                  "domains, snapshots or what forks go back to are in the pool \"%s\" (BUSY): "
                  "destroy them first",
                  name);
    }
    cleave->error = error;
    return status;
}

int cleave_pool_create(struct cleave_handle *cleave, const char *name, uint64_t *size)
{
    struct cleave_pool_create create = {.size = *size};
    int status = put_name(cleave, create.name, name);
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_POOL_CREATE, &create, sizeof(create));
    }
    if (status == 0) {
        *size = create.size;
    }
    return status > 0 ? explain(cleave, status, name) : status;
}

int cleave_pool_resize(struct cleave_handle *cleave, const char *name, uint64_t *size)
{
    struct cleave_pool_resize resize = {.size = *size};
    int status = put_name(cleave, resize.name, name);
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_POOL_RESIZE, &resize, sizeof(resize));
    }
    if (status == 0) {
        *size = resize.size;
    }
    return status > 0 ? explain(cleave, status, name) : status;
}

int cleave_pool_delete(struct cleave_handle *cleave, const char *name)
{
    struct cleave_pool_delete remove;
    memset(&remove, 0, sizeof(remove));
    int status = put_name(cleave, remove.name, name);
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_POOL_DELETE, &remove, sizeof(remove));
    }
    return status > 0 ? explain(cleave, status, name) : status;
}

int cleave_pool_list(struct cleave_handle *cleave, struct cleave_pool_list **out, size_t *count,
                     uint64_t *left)
{
    struct cleave_pool_list *all = NULL, next = {.number = 0};
    size_t used = 0;
    int status;
    for (;;) {
        next = (struct cleave_pool_list){.number = next.number};
        status = cleave_call(cleave, CLEAVE_OP_POOL_LIST, &next, sizeof(next));
        if (status != 0 || next.number == 0) {
            break;
        }
        struct cleave_pool_list *more = realloc(all, (used + 1) * sizeof(*all));
        if (more == NULL) {
            status = fail_here(cleave, ENOMEM, "no memory for a list of %zu pools", used + 1);
            break;
        }
        all = more;
        next.name[sizeof(next.name) - 1] = '\0';
        all[used++] = next;
    }
    if (status != 0) {
        free(all);
        return status;
    }
    if (left != NULL) {
        *left = next.left;
    }
    *out = all;
    *count = used;
    return 0;
}
