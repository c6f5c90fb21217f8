/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions on domains as a whole. */
#include "handle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_MS 5 /* between two looks of a wait */

int cleave_version(struct cleave_handle *cleave, struct cleave_version *out)
{
    memset(out, 0, sizeof(*out));
    return cleave_call(cleave, CLEAVE_OP_VERSION, out, sizeof(*out));
}

/* The next domain behind list->domain; 0 there at the end. */
static int list_next(struct cleave_handle *cleave, struct cleave_list *list)
{
    int status;
    do {
        *list = (struct cleave_list){.domain = list->domain};
        status = cleave_call(cleave, CLEAVE_OP_LIST, list, sizeof(*list));
    } while (status == 0 && list->domain != 0 && list->state == 0);
    list->name[sizeof(list->name) - 1] = '\0';
    return status;
}

int cleave_list(struct cleave_handle *cleave, struct cleave_list **out, size_t *count)
{
    struct cleave_list *all = NULL, next = {.domain = 0};
    size_t used = 0, room = 0;
    int status;

    while ((status = list_next(cleave, &next)) == 0 && next.domain != 0) {
        if (used == room) {
            room = 2 * room + 16;
            struct cleave_list *more = realloc(all, room * sizeof(*all));
            if (more == NULL) {
                status = fail_here(cleave, ENOMEM, "no memory for a list of %zu domains", room);
                break;
            }
            all = more;
        }
        all[used++] = next;
    }
    if (status != 0) {
        free(all);
        return status;
    }
    *out = all;
    *count = used;
    return 0;
}

/* Domains of two pools may have one name: whichever is meant, it is not guessed. */
static int find_name(struct cleave_handle *cleave, const char *name, struct cleave_list *out)
{
    struct cleave_list at = {.domain = 0};
    int status;
    out->domain = 0;
    while ((status = list_next(cleave, &at)) == 0 && at.domain != 0) {
        if (strcmp(at.name, name) == 0) {
            if (out->domain != 0) {
                return fail_here(cleave, ENOTUNIQ,
                                 "the domains %u and %u, of two pools, both have the name "
                                 "\"%.63s\": use the number",
                                 out->domain, at.domain, name);
            }
            *out = at;
        }
    }
    if (status == 0 && out->domain == 0) {
        status = fail_here(cleave, ENOENT,
                           "there is no domain \"%.63s\", or this one may not command it: \"cleave "
                           "list\" shows those that there are",
                           name);
    }
    return status;
}

static int find_id(struct cleave_handle *cleave, const char *digits, struct cleave_list *out)
{
    char *end;
    unsigned long id = strtoul(digits, &end, 10);
    if (*end != '\0' || id == 0 || id > CLEAVE_DOMAIN_CONTROL) {
        return fail_here(cleave, EINVAL, "%s is no domain's number: they are 1 to %u", digits,
                         (unsigned)CLEAVE_DOMAIN_CONTROL);
    }
    *out = (struct cleave_list){.domain = (uint32_t)id - 1};
    int status = list_next(cleave, out);
    if (status == 0 && out->domain != id && find_name(cleave, digits, out) == 0) {
        return fail_here(
            cleave, ENOENT,
            "there is no domain of number %lu; one has that name: \"name=%lu\" means it", id, id);
    }
    if (status == 0 && out->domain != id) {
        return fail_here(cleave, ENOENT,
                         "there is no domain %lu, or this one may not command it: \"cleave list\" "
                         "shows those that there are",
                         id);
    }
    return status;
}

int cleave_find(struct cleave_handle *cleave, const char *text, struct cleave_list *out)
{
    static const char digits[] = "0123456789";
    if (strncmp(text, "name=", 5) == 0) {
        return find_name(cleave, text + 5, out);
    }
    const char *number = strncmp(text, "id=", 3) == 0 ? text + 3 : text;
    if (number != text || (*text != '\0' && text[strspn(text, digits)] == '\0')) {
        if (*number == '\0' || number[strspn(number, digits)] != '\0') {
            return fail_here(cleave, EINVAL, "\"%.63s\" is no number of a domain", number);
        }
        return find_id(cleave, number, out);
    }
    if (*text == '\0' || strlen(text) >= CLEAVE_NAME_SIZE) {
        return fail_here(cleave, EINVAL, "a name has 1 to %u characters", CLEAVE_NAME_SIZE - 1);
    }
    return find_name(cleave, text, out);
}

static int call_domain(struct cleave_handle *cleave, enum cleave_op op, uint32_t domain)
{
    struct cleave_domain arguments = {.domain = domain};
    return cleave_call(cleave, op, &arguments, sizeof(arguments));
}

/* The same on another domain than the one that asks. */
static int call_other(struct cleave_handle *cleave, enum cleave_op op, uint32_t domain)
{
    if (domain == cleave->self || domain == CLEAVE_DOMAIN_SELF) {
        return fail_here(cleave, EINVAL, "%s: this is the domain that asks", op_name(op));
    }
    return call_domain(cleave, op, domain);
}

int cleave_pause(struct cleave_handle *cleave, uint32_t domain)
{
    return call_other(cleave, CLEAVE_OP_PAUSE, domain);
}

int cleave_unpause(struct cleave_handle *cleave, uint32_t domain)
{
    int status = call_domain(cleave, CLEAVE_OP_UNPAUSE, domain);
    if (status == CLEAVE_INVALID) {
        struct cleave_error error = cleave->error;
        fail_here(cleave, 0, "unpause: it is not paused (INVALID)");
        cleave->error = error;
    }
    return status;
}

int cleave_destroy(struct cleave_handle *cleave, uint32_t domain)
{
    return call_other(cleave, CLEAVE_OP_DESTROY, domain);
}

int cleave_reset(struct cleave_handle *cleave, uint32_t domain)
{
    return call_other(cleave, CLEAVE_OP_RESET, domain);
}

static int put_name(struct cleave_handle *cleave, char to[CLEAVE_NAME_SIZE], const char *name)
{
    size_t length = strlen(name);
    if (length >= CLEAVE_NAME_SIZE) {
        return fail_here(cleave, EINVAL, "a name has 1 to %u characters, this one has %zu",
                         CLEAVE_NAME_SIZE - 1, length);
    }
    memcpy(to, name, length + 1);
    return 0;
}

/* The rule is more of a help than the argument's value. */
int explain_name(struct cleave_handle *cleave, int status, const char *name)
{
    struct cleave_error error = cleave->error;
    if (strcmp(error.argument, "name") != 0) {
        return status;
    }
    if (status == CLEAVE_INVALID) {
        fail_here(cleave, 0,
                  "\"%s\" is no name (INVALID): 1 to %u of letters, digits, '-', '_' and '.', not "
                  "beginning with \"fork-\" or \"domain-\"",
                  name, CLEAVE_NAME_SIZE - 1);
    } else if (status == CLEAVE_EXISTS) {
        fail_here(cleave, 0, "a domain \"%s\" is there already (EXISTS): choose another name",
                  name);
    }
    cleave->error = error;
    return status;
}

int cleave_create_in(struct cleave_handle *cleave, uint32_t pool, const char *name, uint32_t vcpus,
                     uint64_t limit, uint32_t *domain)
{
    struct cleave_create_in arguments = {.limit = limit, .vcpus = vcpus, .pool = pool};
    int status = name != NULL ? put_name(cleave, arguments.name, name) : 0;
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_CREATE_IN, &arguments, sizeof(arguments));
    }
    if (status == 0) {
        *domain = arguments.domain;
    }
    return status > 0 ? explain_name(cleave, status, name) : status;
}

int cleave_rename(struct cleave_handle *cleave, uint32_t domain, const char *name)
{
    struct cleave_rename rename = {.domain = domain};
    int status = put_name(cleave, rename.name, name);
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_RENAME, &rename, sizeof(rename));
    }
    return status > 0 ? explain_name(cleave, status, name) : status;
}

int cleave_grant(struct cleave_handle *cleave, uint32_t domain, uint32_t over, uint32_t rights)
{
    struct cleave_grant grant = {.domain = domain, .over = over, .rights = rights};
    return cleave_call(cleave, CLEAVE_OP_GRANT, &grant, sizeof(grant));
}

int cleave_snapshot(struct cleave_handle *cleave, uint32_t domain, const char *name,
                    uint32_t *snapshot)
{
    struct cleave_snapshot arguments = {.domain = domain};
    int status = put_name(cleave, arguments.name, name);
    if (status == 0) {
        status = cleave_call(cleave, CLEAVE_OP_SNAPSHOT, &arguments, sizeof(arguments));
    }
    if (status != 0) {
        return status > 0 ? explain_name(cleave, status, name) : status;
    }
    if (snapshot != NULL) {
        *snapshot = arguments.snapshot;
    }
    return 0;
}

/* What is too much stays too much. */
static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes > UINT64_MAX - 4095 ? bytes : bytes + 4095) & ~UINT64_C(4095);
}

int cleave_fork(struct cleave_handle *cleave, uint32_t domain,
                const struct cleave_fork_options *options, uint32_t *children)
{
    unsigned char *data = cleave_buffer(cleave);
    uint32_t *ids = (uint32_t *)(void *)(data + CLEAVE_DATA_MAX);
    struct cleave_fork fork = {.domain = domain,
                               .count = options->count,
                               .flags = options->flags,
                               .limit = options->limit != 0 ? options->limit : UINT64_MAX,
                               .data_size = (uint32_t)options->data_size,
                               .domains = (uintptr_t)ids,
                               .first = options->first,
                               .of = options->of,
                               .reserve = whole_pages(options->reserve)};
    if (options->data_size > CLEAVE_DATA_MAX) {
        return fail_here(cleave, EINVAL, "fork: %zu bytes of data; a child takes at most %u",
                         options->data_size, CLEAVE_DATA_MAX);
    }
    if (options->data_size != 0) {
        memcpy(data, options->data, options->data_size);
        fork.data = (uintptr_t)data;
    }
    int status = cleave_call(cleave, CLEAVE_OP_FORK, &fork, sizeof(fork));
    if (status == 0 && children != NULL) {
        memcpy(children, ids, options->count * sizeof(*ids));
    }
    return status;
}

/* BUSY while it runs; no message is made of that. */
static int look(struct cleave_handle *cleave, uint32_t domain, struct cleave_end *out)
{
    struct cleave_wait wait = {.domain = domain,
                               .flags = CLEAVE_WAIT_NOT,
                               .size = CLEAVE_RESULT_MAX,
                               .result = (uintptr_t)cleave_buffer(cleave)};
    int status = cleave_call(cleave, CLEAVE_OP_WAIT, &wait, sizeof(wait));
    if (status == 0) {
        out->domain = wait.which;
        out->reason = wait.reason;
        out->code = wait.code;
        out->size = wait.size < CLEAVE_RESULT_MAX ? wait.size : CLEAVE_RESULT_MAX;
        memcpy(out->result, cleave_buffer(cleave), out->size);
    } else if (status == CLEAVE_NO_CAP) {
        struct cleave_error error = cleave->error;
        struct cleave_list list = {.domain = domain - 1};
        bool there = list_next(cleave, &list) == 0 && list.domain == domain;
        if (domain == cleave->self) {
            fail_here(cleave, 0, "wait: this is the domain that asks (NO_CAP)");
        } else if (there && (list.flags & CLEAVE_LIST_SNAPSHOT) != 0) {
            return fail_here(cleave, EINVAL, "wait: %u is a snapshot, which never ends", domain);
        } else {
            fail_here(cleave, 0, "wait: domain %u is not there any more (NO_CAP): it was destroyed",
                      domain);
        }
        cleave->error = error;
    }
    return status;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int cleave_wait(struct cleave_handle *cleave, const uint32_t *domains, size_t count,
                int64_t timeout, struct cleave_end *out)
{
    int64_t began = now_ms();
    if (count == 0) {
        return fail_here(cleave, EINVAL, "wait: for no domain");
    }
    for (;;) {
        for (size_t i = 0; i < count; i++) {
            int status = look(cleave, domains[i], out);
            if (status != CLEAVE_BUSY) {
                return status;
            }
        }
        int64_t left = timeout < 0 ? LOOK_MS : timeout - (now_ms() - began);
        if (left <= 0) {
            return fail_here(cleave, ETIMEDOUT, "still running when the time was over");
        }
        int64_t rest = left < LOOK_MS ? left : LOOK_MS;
        nanosleep(&(struct timespec){.tv_nsec = (long)rest * 1000000}, NULL);
    }
}
