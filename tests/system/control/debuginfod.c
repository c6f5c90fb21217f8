/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libdebuginfod.so.1 for the gdb of the tests. gdb is linked with it to fetch symbols over a
 * network; the control domain has none, and Debian's needs thirty more libraries. This one says
 * that there is no server, as Debian's does where none is named.
 */
#include <errno.h>
#include <stddef.h>

struct debuginfod_client;

struct debuginfod_client *debuginfod_begin(void);
struct debuginfod_client *debuginfod_begin(void) { return NULL; }

#define NOTHING(name)                                                                              \
    int name(void);                                                                                \
    int name(void) { return -ENOSYS; }
NOTHING(debuginfod_find_debuginfo)
NOTHING(debuginfod_find_executable)
NOTHING(debuginfod_find_source)

void debuginfod_end(struct debuginfod_client *client);
void debuginfod_end(struct debuginfod_client *client) { (void)client; }
void debuginfod_set_progressfn(struct debuginfod_client *client, void *function);
void debuginfod_set_progressfn(struct debuginfod_client *client, void *function)
{
    (void)client;
    (void)function;
}
void debuginfod_set_user_data(struct debuginfod_client *client, void *data);
void debuginfod_set_user_data(struct debuginfod_client *client, void *data)
{
    (void)client;
    (void)data;
}
void *debuginfod_get_user_data(struct debuginfod_client *client);
void *debuginfod_get_user_data(struct debuginfod_client *client)
{
    (void)client;
    return NULL;
}
