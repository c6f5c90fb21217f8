/* SPDX-License-Identifier: BSD-2-Clause */
/* Maps the identity page; see identity.h. */
#include "identity.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES (2 * (size_t)4096)

const volatile struct cleave_identity *identity_map(void)
{
    const char *instead = getenv("CLEAVE_IDENTITY");
    int fd = open(instead != NULL ? instead : "/dev/mem", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    void *page = mmap(NULL, PAGES, PROT_READ, MAP_SHARED, fd,
                      instead != NULL ? 0 : (off_t)CLEAVE_IDENTITY_GPA);
    close(fd);
    if (page == MAP_FAILED) {
        return NULL;
    }
    const struct cleave_identity *identity = page;
    if (memcmp(identity->magic, CLEAVE_IDENTITY_MAGIC, sizeof(identity->magic)) != 0 ||
        identity->revision != CLEAVE_IDENTITY_REVISION) {
        munmap(page, PAGES);
        return NULL;
    }
    return identity;
}

const volatile uint8_t *identity_data(const volatile struct cleave_identity *identity)
{
    return (const volatile uint8_t *)identity + (CLEAVE_IDENTITY_DATA_GPA - CLEAVE_IDENTITY_GPA);
}
