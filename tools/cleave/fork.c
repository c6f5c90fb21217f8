/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands that make domains of others: fork, restore, snapshot. */
#include "command.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A file of at most CLEAVE_DATA_MAX bytes. */
static bool read_data(struct run *run, const char *path, unsigned char *data, size_t *size)
{
    unsigned char more;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        failed_here(run, REFUSED, path, "%s", strerror(errno));
        return false;
    }
    *size = fread(data, 1, CLEAVE_DATA_MAX, file);
    bool whole = !ferror(file) && fread(&more, 1, 1, file) == 0 && !ferror(file);
    if (ferror(file)) {
        failed_here(run, REFUSED, path, "%s", strerror(errno));
    } else if (!whole) {
        failed_here(run, USAGE, path, "more than the %u bytes that a child takes", CLEAVE_DATA_MAX);
    }
    fclose(file);
    return whole;
}

static bool fork_some(struct run *run, const struct cleave_list *parent,
                      const struct cleave_fork_options *options, const char *file, json_t *all)
{
    uint32_t child[CLEAVE_FORKS_MAX];
    int status = cleave_fork(run->cleave, parent->domain, options, child);
    if (status != 0) {
        failed(run, status, file != NULL ? file : parent->name);
        return false;
    }
    for (uint32_t i = 0; i < options->count; i++) {
        char name[CLEAVE_NAME_SIZE];
        snprintf(name, sizeof(name), "fork-%u", child[i]);
        json_t *object = json_pack("{s:i,s:s}", "id", (int)child[i], "name", name);
        if (file != NULL) {
            put(object, "file", json_string(file));
            tell(run, "%u %s %s\n", child[i], name, file);
        } else {
            tell(run, "%u %s\n", child[i], name);
        }
        append(all, object);
    }
    return true;
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* A child for each regular file, numbered in the order of their names; those that were made before
 * a failure stay. */
static void fork_files(struct run *run, const struct cleave_list *parent,
                       struct cleave_fork_options options, json_t *all)
{
    static unsigned char data[CLEAVE_DATA_MAX];
    struct dirent **entries;
    const char *folder = run->options.data_dir;
    int found = scandir(folder, &entries, is_visible, alphasort), count = 0;
    char path[4096];
    if (found < 0) {
        failed_here(run, REFUSED, folder, "%s", strerror(errno));
        return;
    }
    for (int i = 0; i < found; i++) {
        struct stat about;
        struct dirent *entry = entries[i];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (stat(path, &about) == 0 && S_ISREG(about.st_mode)) {
            entries[count++] = entry;
        } else {
            free(entry);
        }
    }
    bool good = true;
    options.data = data;
    options.of = (uint32_t)count;
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        options.first = (uint32_t)i + 1;
        good = good && read_data(run, path, data, &options.data_size) &&
               fork_some(run, parent, &options, path, all);
        free(entries[i]);
    }
    free(entries);
    if (count == 0) {
        failed_here(run, USAGE, folder, "there is no file in it");
    }
}

static void fork_parent(struct run *run, const struct cleave_list *parent)
{
    static unsigned char data[CLEAVE_DATA_MAX];
    const struct options *o = &run->options;
    struct cleave_fork_options options = {.count = o->count != 0 ? o->count : 1,
                                          .flags = o->flags | (o->no_base ? 0 : CLEAVE_FORK_BASE),
                                          .limit = o->limit,
                                          .reserve = o->reserve,
                                          .data = data};
    json_t *all = json_array();
    put(run->result, "from",
        json_pack("{s:i,s:s}", "id", (int)parent->domain, "name", parent->name));
    put(run->result, "domains", all);
    if (o->data_dir == NULL) {
        if (o->data == NULL || read_data(run, o->data, data, &options.data_size)) {
            fork_some(run, parent, &options, NULL, all);
        }
        return;
    }
    sigset_t ends, before; /* the parent is not left paused */
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    sigprocmask(SIG_BLOCK, &ends, &before);
    bool frozen = (parent->flags & CLEAVE_LIST_SNAPSHOT) != 0;
    int status = frozen ? 0 : cleave_pause(run->cleave, parent->domain);
    if (status == 0) {
        fork_files(run, parent, options, all);
        status = frozen ? 0 : cleave_unpause(run->cleave, parent->domain);
    }
    if (status != 0) {
        failed(run, status, parent->name);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
}

void run_fork(struct run *run)
{
    struct cleave_list parent;
    int status = cleave_find(run->cleave, run->targets[0], &parent);
    if (status != 0) {
        failed(run, status, run->targets[0]);
        return;
    }
    fork_parent(run, &parent);
}

void run_restore(struct run *run)
{
    struct cleave_list parent;
    int status = cleave_find(run->cleave, run->targets[0], &parent);
    if (status != 0) {
        failed(run, status, run->targets[0]);
    } else if (!(parent.flags & CLEAVE_LIST_SNAPSHOT)) {
        failed_here(run, REFUSED, run->targets[0],
                    "it is no snapshot: \"cleave snapshot\" makes one, \"cleave fork\" forks what "
                    "runs");
    } else {
        fork_parent(run, &parent);
    }
}

void run_snapshot(struct run *run)
{
    struct cleave_list parent;
    uint32_t id;
    int status = cleave_find(run->cleave, run->targets[0], &parent);
    if (status == 0) {
        status = cleave_snapshot(run->cleave, parent.domain, run->targets[1], &id);
    }
    if (status != 0) {
        failed(run, status, run->targets[0]);
        return;
    }
    put(run->result, "from", json_pack("{s:i,s:s}", "id", (int)parent.domain, "name", parent.name));
    put(run->result, "id", json_integer(id));
    put(run->result, "name", json_string(run->targets[1]));
    tell(run, "%u %s\n", id, run->targets[1]);
}
