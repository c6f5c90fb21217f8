/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libcleave: what a program in the control domain can ask of Cleave. What the command cleave(1)
 * asks of it is a function here, and cleave_call() is for the rest; kernels, cores, the log and CPU
 * times are the command's own work, by libxenctrl where a hypervisor is asked.
 *
 *     char why[CLEAVE_MESSAGE_SIZE];
 *     struct cleave_handle *cleave = cleave_open(0, why);
 *     if (cleave == NULL) {
 *         errx(1, "%s", why);
 *     }
 *     struct cleave_list parent;
 *     struct cleave_fork_options options = {.count = 4, .flags = CLEAVE_FORK_BASE};
 *     uint32_t child[4];
 *     if (cleave_find(cleave, "template", &parent) != 0 ||
 *         cleave_fork(cleave, parent.domain, &options, child) != 0) {
 *         errx(1, "%s", cleave_message(cleave));
 *     }
 *     cleave_close(cleave);
 *
 * Link with `pkg-config --cflags --libs libcleave`.
 *
 * WHO MAY CALL. A process that may open /dev/xen/privcmd, so root, in the control domain: that may
 * command all domains. In another domain (a Linux guest needs "xen_privcmd.unrestricted=1" on its
 * kernel's command line) the same functions reach the domain itself and what it made.
 *
 * RETURNS. Functions that return int return 0 when the operation was done; a status of
 * <cleave/status.h> (CLEAVE_ALIGN and up) when the hypervisor refused it, and then nothing has
 * changed; or a negative errno when it was not reached: -ENOSYS no Cleave, -EFAULT the arguments'
 * memory, -EINVAL an argument that this library refused, -ENOENT no domain of that name,
 * -ETIMEDOUT, -ECANCELED, -ENOMEM. cleave_message() then says in words what was wrong and what to
 * do.
 *
 * UNITS. Memory is in bytes, addresses are guest-physical, times are in milliseconds unless a name
 * says otherwise. Domains are numbered from 1; CLEAVE_DOMAIN_SELF is the caller's.
 *
 * THREADS. A handle is used by one thread at a time; several handles need no care. After fork(2) a
 * child opens a handle of its own.
 *
 * The structures are those of <cleave/abi.h>. Fields called `reserved` are of no use.
 */
#ifndef CLEAVE_H
#define CLEAVE_H

#include <stddef.h>
#include <stdint.h>

#include "cleave/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cleave_handle;

#define CLEAVE_MESSAGE_SIZE 512u /* bytes of a message, with the zero byte that ends it */

/* --- Opening, and errors ---------------------------------------------------------------------- */

/* Opens the hypervisor. `why` (CLEAVE_MESSAGE_SIZE bytes, or null) gets the reason of a failure,
 * for which null is returned: the device cannot be opened, the hypervisor is not Cleave, or speaks
 * another revision than this library was built for. With CLEAVE_OPEN_ANY_REVISION the last is no
 * failure; then only cleave_version() is sure to be understood. */
struct cleave_handle *cleave_open(unsigned flags, char *why);
#define CLEAVE_OPEN_ANY_REVISION 1u

/* Gives back what the handle holds. Null is allowed. */
void cleave_close(struct cleave_handle *cleave);

/* What was wrong with the last call on this handle that failed: one line, no newline, valid until
 * the next call; "" when none has failed. */
const char *cleave_message(const struct cleave_handle *cleave);

/* The details of that failure as the hypervisor gave them: status, operation, the argument's name,
 * its value and its legal range, `low` > `high` where it has none. `argument` is "" where nothing
 * is known of it: the call failed here, or another process's call failed on the same vcpu
 * meanwhile. */
const struct cleave_error *cleave_last_error(const struct cleave_handle *cleave);

/* "NO_CAP" for CLEAVE_NO_CAP, "exited" for CLEAVE_EXITED, "running" for CLEAVE_STATE_RUNNING. These
 * words are kept from release to release. "unknown" for other numbers. */
const char *cleave_status_name(unsigned status);
const char *cleave_reason_name(uint32_t reason);
const char *cleave_state_name(uint32_t state);

/* Any operation of <cleave/abi.h>, by its number, with its structure, which is copied to memory
 * that the hypervisor can read, and back where the call succeeds. Addresses inside the structure
 * must point into cleave_buffer(). For what has no function of its own here. */
int cleave_call(struct cleave_handle *cleave, enum cleave_op op, void *arguments, size_t size);

/* CLEAVE_COPY_MAX bytes that the hypervisor can read and write, page-aligned, the handle's own.
 * Functions that take or give data use it, too. */
void *cleave_buffer(struct cleave_handle *cleave);

/* --- The machine ------------------------------------------------------------------------------ */

/* Revision of the ABI, number of operations, the caller's domain and vcpu, ticks of the TSC a
 * second, and the kind of machine. Never refused. */
int cleave_version(struct cleave_handle *cleave, struct cleave_version *out);

/* Checks the invariants of the memory of the caller's pool, with the machine standing still
 * meanwhile (milliseconds for each GiB). 0 also where one is violated: look at `out->invariant`,
 * which is 0 when all hold. CLEAVE_COUNT: a pool of more than 8 GiB. */
int cleave_audit(struct cleave_handle *cleave, struct cleave_audit *out);

/* --- Pools, for the control domain ------------------------------------------------------------ */

/* A pool of `*size` bytes, rounded down to 2 MiB, which is then what it has; of memory that no pool
 * has. A name has 1 to 31 characters as those of domains. CLEAVE_EXISTS, CLEAVE_NO_MEMORY,
 * CLEAVE_COUNT: less than 2 MiB, or 16 pools there are. -EINVAL: the name is too long. */
int cleave_pool_create(struct cleave_handle *cleave, const char *name, uint64_t *size);

/* All pools: `*out` is an array of `*count`, to be given back by free(); in `*left` (null: not
 * wanted) the size of the largest that could still be made. */
int cleave_pool_list(struct cleave_handle *cleave, struct cleave_pool_list **out, size_t *count,
                     uint64_t *left);

/* Moves the end of a pool, so that it has `*size` bytes, rounded down to 2 MiB, which is then what
 * it has. CLEAVE_NOT_MAPPED: there is none of that name. CLEAVE_NO_MEMORY: less lies behind it that
 * no pool has; `high` of cleave_last_error() is the most that it can have now. CLEAVE_BUSY: memory
 * behind that is in use or reserved; `low` is the least. CLEAVE_COUNT: less than 2 MiB.
 * CLEAVE_DYING: it is being deleted. -EINVAL as above. */
int cleave_pool_resize(struct cleave_handle *cleave, const char *name, uint64_t *size);

/* Its memory is no pool's again. CLEAVE_NOT_MAPPED: there is none of that name. CLEAVE_BUSY:
 * domains, snapshots or bases are in it. -EINVAL as above. */
int cleave_pool_delete(struct cleave_handle *cleave, const char *name);

/* An empty domain in the pool of this number: no memory, vcpus off; its id in `*domain`. `name`
 * NULL: "domain-" and its id. `limit` in bytes, UINT64_MAX: all of the pool. CLEAVE_NOT_MAPPED,
 * CLEAVE_EXISTS, CLEAVE_NO_MEMORY. */
int cleave_create_in(struct cleave_handle *cleave, uint32_t pool, const char *name, uint32_t vcpus,
                     uint64_t limit, uint32_t *domain);

/* --- Finding domains -------------------------------------------------------------------------- */

/* All domains that the caller may command, by rising number, itself included: `*out` is an array of
 * `*count`, to be given back by free(). Domains that come and go meanwhile may be in it or not. */
int cleave_list(struct cleave_handle *cleave, struct cleave_list **out, size_t *count);

/* The domain that a user's text means: a number ("17", or "id=17"), or a name ("template", or
 * "name=17" for a name of digits). -ENOENT: there is none. -ENOTUNIQ: two have the name, in
 * different pools. -EINVAL: neither. */
int cleave_find(struct cleave_handle *cleave, const char *text, struct cleave_list *out);

/* --- Making a domain -------------------------------------------------------------------------- */

struct cleave_create_options {
    const char *name;   /* rules as for cleave_rename(); null: "domain-" and its number */
    const void *kernel; /* a 64-bit ELF kernel with a PVH note, as Linux's vmlinux */
    size_t kernel_size;
    const void *initrd;       /* initial RAM disk */
    size_t initrd_size;       /* 0: none */
    const char *command_line; /* at most 1023 characters; null: empty */
    uint64_t memory;          /* bytes, a multiple of 4096, at least 2 MiB */
    uint32_t vcpus;           /* 1..CLEAVE_VCPUS_MAX */
    uint32_t flags;           /* CLEAVE_CREATE_* */
    const char *pool;         /* whose memory it has; null: the caller's */
    /* Called as it gets on, with bytes; another value than 0 stops it. Null: not wanted. */
    int (*progress)(void *context, uint64_t done, uint64_t all);
    void *context;
};
#define CLEAVE_CREATE_PAUSED 1u /* until cleave_unpause() */

/* Makes a domain in a pool, loads it and starts it; its number in `*domain` (null: not
 * wanted). It has all its memory from the start, by the largest leaves that the pool has blocks
 * for. On failure nothing is left, and the message begins with the argument that was wrong:
 * -EINVAL; CLEAVE_EXISTS, CLEAVE_INVALID: the name; CLEAVE_NO_MEMORY, CLEAVE_QUOTA: the memory;
 * CLEAVE_NOT_MAPPED: no such pool, CLEAVE_DENIED: pools are the control domain's;
 * -ECANCELED: stopped by `progress`. */
int cleave_create(struct cleave_handle *cleave, const struct cleave_create_options *options,
                  uint32_t *domain);

/* --- Consoles --------------------------------------------------------------------------------- */

/* What a domain printed, from byte `*cursor` on, counted from its first: begin with 0. `*size` is
 * the room in `buffer`, of which CLEAVE_TEXT_MAX are used at most, and then what was given; 0 when
 * there is no more yet. `*cursor` is then behind it. `*lost`: so many bytes from the cursor on were
 * gone, as only the last CLEAVE_TERMINAL_KEPT are kept. Also of a domain that has ended; others
 * read the same. CLEAVE_RANGE: so much it never printed. */
int cleave_terminal_read(struct cleave_handle *cleave, uint32_t domain, uint64_t *cursor,
                         void *buffer, size_t *size, uint64_t *lost);

/* Types `*size` bytes, at least 1, on a domain's console; `*size` is then how many it takes, from
 * the first on: the others are to be typed again later. CLEAVE_DYING: it has ended.
 * CLEAVE_NOT_MAPPED: it has no console. */
int cleave_terminal_type(struct cleave_handle *cleave, uint32_t domain, const void *bytes,
                         size_t *size);

/* --- Life of a domain ------------------------------------------------------------------------- */

/* PAUSE returns when no vcpu runs any more; pauses nest. UNPAUSE takes one back, or that of
 * CLEAVE_FORK_PAUSED. CLEAVE_FROZEN: a snapshot. CLEAVE_INVALID: there is no pause to take back. A
 * caller that pauses its own domain stays there: -EINVAL. */
int cleave_pause(struct cleave_handle *cleave, uint32_t domain);
int cleave_unpause(struct cleave_handle *cleave, uint32_t domain);

/* Ends the domain if it runs and gives its memory back; its forks live on. CLEAVE_INVALID: the
 * caller itself. CLEAVE_BUSY: one of its pages is in use by a device; call again. */
int cleave_destroy(struct cleave_handle *cleave, uint32_t domain);

/* Another name: 1 to 63 letters, digits, '-', '_' and '.', not beginning with "fork-" or
 * "domain-", in use nowhere (from the control domain; else not in the pool). CLEAVE_INVALID,
 * CLEAVE_EXISTS. -EINVAL: too long. */
int cleave_rename(struct cleave_handle *cleave, uint32_t domain, const char *name);

/* Gives `domain` exactly these rights (CLEAVE_RIGHT_*) over `over`, in place of those that it was
 * given before; 0 takes them back. For who commands both. CLEAVE_INVALID: no such rights, or both
 * are one domain; CLEAVE_COUNT: `domain` has rights over 256 others; CLEAVE_NO_MEMORY,
 * CLEAVE_QUOTA. */
int cleave_grant(struct cleave_handle *cleave, uint32_t domain, uint32_t over, uint32_t rights);

/* How a domain ended. */
struct cleave_end {
    uint32_t domain;
    uint32_t reason; /* enum cleave_reason */
    uint32_t code;   /* as it gave it, where the reason is CLEAVE_EXITED */
    uint32_t size;   /* bytes of `result` */
    uint8_t result[CLEAVE_RESULT_MAX];
};

/* Waits until one of `count` domains has ended, and says which and how; the same end can be asked
 * for until that domain is destroyed. `timeout`: milliseconds, 0: only looks, negative: for ever.
 * It looks every few milliseconds, because the hypervisor's own wait would stop the whole vcpu.
 * -ETIMEDOUT: they all run still. -EINVAL: one is a snapshot. CLEAVE_NO_CAP: one is not there (any
 * more), or the caller has not made it and is not the control domain. */
int cleave_wait(struct cleave_handle *cleave, const uint32_t *domains, size_t count,
                int64_t timeout, struct cleave_end *out);

/* --- Forks ------------------------------------------------------------------------------------ */

struct cleave_fork_options {
    uint32_t count; /* of children, 1..CLEAVE_FORKS_MAX */
    uint32_t
        flags; /* CLEAVE_FORK_RESERVE, CLEAVE_FORK_BASE, CLEAVE_FORK_PAUSED, CLEAVE_FORK_CLOCK */
    uint64_t limit;   /* memory each may be charged for, bytes; 0: as much as the caller */
    const void *data; /* what each child finds behind its identity page */
    size_t data_size; /* 0..CLEAVE_DATA_MAX bytes */
    /* Where children of one kind are made by several calls: the number that the first child of this
     * one is told (0: 1), and how many there are in all (0: `count`); first + count - 1 <= of. */
    uint32_t first, of;
    uint64_t reserve; /* with CLEAVE_FORK_RESERVE: bytes for each; 0: all that it can need */
};

/* Forks a domain, or restores a snapshot: all children or none, of one instant, with their ids in
 * `children` (null: not wanted). They are named fork-<id>. CLEAVE_COUNT: `count`, `data_size`,
 * `first`, `of` or `reserve`. CLEAVE_RESERVE, CLEAVE_NO_MEMORY, CLEAVE_QUOTA: not so much memory.
 * CLEAVE_DYING: it has ended. -EINVAL: data of more than CLEAVE_DATA_MAX bytes. */
int cleave_fork(struct cleave_handle *cleave, uint32_t domain,
                const struct cleave_fork_options *options, uint32_t *children);

/* A frozen copy under a name of its own (rules as for cleave_rename()); its id in `*snapshot`.
 * Restore it by cleave_fork(). */
int cleave_snapshot(struct cleave_handle *cleave, uint32_t domain, const char *name,
                    uint32_t *snapshot);

/* Memory and vcpus of a child with CLEAVE_FORK_BASE are again as they were when it was made; it
 * costs what was written since. CLEAVE_NO_BASE: it has none. CLEAVE_DYING: it has ended. */
int cleave_reset(struct cleave_handle *cleave, uint32_t domain);

/* --- Memory ----------------------------------------------------------------------------------- */

/* Memory, counts and times of a domain, its pool and the machine: <cleave/abi.h> names each. */
int cleave_stat(struct cleave_handle *cleave, uint32_t domain, struct cleave_stat *out);

/* Copies `size` bytes, of any alignment, between the domain's memory at `at` and `buffer`, in parts
 * of 64 KiB: on an error those before it are done. A running domain may change them meanwhile. What
 * was never touched reads as zeros, and stays untouched. CLEAVE_FAULT: no memory there, or none
 * that may be written. CLEAVE_FROZEN: a snapshot is not written. */
int cleave_read(struct cleave_handle *cleave, uint32_t domain, uint64_t at, void *buffer,
                size_t size);
int cleave_write(struct cleave_handle *cleave, uint32_t domain, uint64_t at, const void *buffer,
                 size_t size);

/* How the page at `at` is mapped now. CLEAVE_RANGE: `at` is past 48 bits. */
int cleave_lookup(struct cleave_handle *cleave, uint32_t domain, uint64_t at,
                  struct cleave_lookup *out);

/* The first leaf, or what stands for one (`out->kind` is not 0), that ends above `at`: `out->at` is
 * where it begins, or `at` inside it; it ends at the next multiple of its size, 4 KiB << 9 times
 * `out->order`. `out->kind` is 0 when there is none up to `end`. Holes are passed in large steps.
 */
int cleave_next_leaf(struct cleave_handle *cleave, uint32_t domain, uint64_t at, uint64_t end,
                     struct cleave_lookup *out);

/* Compares the memory of two domains in [`at`, `end`), multiples of 4 KiB up to 2^48, and calls
 * `differs` for each 4 KiB page whose contents are not the same, until it returns another value
 * than 0, which is then returned. What is shared is not read, what was never touched counts as
 * zeros. Pause what runs, or the answer is of several moments. -EINVAL: the range. */
int cleave_diff(struct cleave_handle *cleave, uint32_t first, uint32_t second, uint64_t at,
                uint64_t end, int (*differs)(void *context, uint64_t at), void *context);
#define CLEAVE_MEMORY_END (UINT64_C(1) << 48) /* no memory lies there, or above */

#ifdef __cplusplus
}
#endif

#endif
