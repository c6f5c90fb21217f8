/* SPDX-License-Identifier: BSD-2-Clause */
#include "hypercall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux's include/uapi/xen/privcmd.h: IOCTL_PRIVCMD_HYPERCALL. */
struct privcmd_hypercall {
    uint64_t op;
    uint64_t arg[5];
};
#define PRIVCMD_HYPERCALL _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))

void fail(const char *format, ...)
{
    va_list list;
    fputs("cleave-guest: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

void *shared_memory(void)
{
    static void *memory;
    if (memory == NULL) {
        int fd = open("/dev/xen/hypercall", O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            fail("/dev/xen/hypercall: %s", strerror(errno));
        }
        memory = mmap(NULL, 2 * (size_t)4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED) {
            fail("/dev/xen/hypercall: %s", strerror(errno));
        }
        close(fd);
    }
    return memory;
}

int xen_call(uint64_t number, uint64_t first, uint64_t second, uint64_t third)
{
    static int fd = -1;
    if (fd < 0) {
        fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            fail("/dev/xen/privcmd: %s", strerror(errno));
        }
    }
    struct privcmd_hypercall hypercall = {number, {first, second, third}};
    int result = ioctl(fd, PRIVCMD_HYPERCALL, &hypercall);
    return result < 0 ? -errno : result;
}

unsigned call(enum cleave_op op, void *arguments, size_t size)
{
    int status;
    do {
        status = xen_call(CLEAVE_HYPERCALL, op, (uintptr_t)arguments, size);
    } while (status == CLEAVE_AGAIN);
    if (status < 0) {
        fail("hypercall %u: %s", CLEAVE_HYPERCALL, strerror(-status));
    }
    return (unsigned)status;
}

void refused(enum cleave_op op, unsigned status)
{
    struct cleave_error *error = shared_memory();
    memset(error, 0, sizeof(*error));
    if (call(CLEAVE_OP_ERROR, error, sizeof(*error)) != CLEAVE_OK) {
        fail("operation %d: status %u", (int)op, status);
    }
    fail("operation %d: status %u, %.*s is %#llx (allowed: %#llx to %#llx)", (int)op, status,
         (int)sizeof(error->argument), error->argument, (unsigned long long)error->value,
         (unsigned long long)error->low, (unsigned long long)error->high);
}

void must(enum cleave_op op, void *arguments, size_t size)
{
    unsigned status = call(op, arguments, size);
    if (status != CLEAVE_OK) {
        refused(op, status);
    }
}
