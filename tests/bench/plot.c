/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data files and gnuplot runs for the plots of the benchmarks. The scripts lie beside this file
 * and are told the directory in the variable `dir`.
 */

#define _GNU_SOURCE
#include "plot.h"

#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIB 1073741824.0
#define PATH 512

static void points_add(struct plot_point *points, size_t *count, size_t room,
                       struct plot_point point)
{
    if (isnan(point.ns)) {
        return;
    }
    if (*count == room) {
        fprintf(stderr, "bench: no room for \"%s\" in the plot\n", point.label);
        return;
    }
    points[(*count)++] = point;
}

/* A point without its numbers. */
static struct plot_point point_named(const char *label)
{
    struct plot_point point = {.bytes = 0};

    snprintf(point.label, sizeof(point.label), "%s", label);
    return point;
}

void plot_add_fork(struct plot *p, const char *series, uint64_t bytes, double ns)
{
    struct plot_point point = point_named(series);

    point.bytes = bytes;
    point.ns = ns;
    points_add(p->forks, &p->fork_count, PLOT_POINTS, point);
}

void plot_add_write(struct plot *p, const char *label, double ns)
{
    struct plot_point point = point_named(label);

    point.ns = ns;
    points_add(p->writes, &p->write_count, PLOT_BARS, point);
}

/* 0 for what Linux does, 1 for what Cleave does, 2 for what is only there to compare with. */
static int colour_of(const char *label)
{
    if (strncmp(label, "Linux", 5) == 0) {
        return 0;
    }
    return strncmp(label, "Cleave", 6) == 0 ? 1 : 2;
}

/* One block of "GiB us colour" per series, under its title, in the order of appearance. */
static void forks_write(FILE *file, const struct plot *p)
{
    size_t i;
    size_t k;

    for (i = 0; i < p->fork_count; i++) {
        const char *label = p->forks[i].label;

        for (k = 0; k < i && strcmp(p->forks[k].label, label) != 0; k++) {
        }
        if (k < i) {
            continue;
        }
        fprintf(file, "%s\"%s\"\n", i > 0 ? "\n\n" : "", label);
        for (; k < p->fork_count; k++) {
            if (strcmp(p->forks[k].label, label) == 0) {
                fprintf(file, "%.6f %.6f %d\n", (double)p->forks[k].bytes / GIB,
                        p->forks[k].ns / 1000, colour_of(label));
            }
        }
    }
}

/* One line of "label us colour" per bar. */
static void writes_write(FILE *file, const struct plot *p)
{
    size_t i;

    for (i = 0; i < p->write_count; i++) {
        fprintf(file, "\"%s\" %.6f %d\n", p->writes[i].label, p->writes[i].ns / 1000,
                colour_of(p->writes[i].label));
    }
}

/* Runs gnuplot on one script; returns 0, or what went wrong. */
static int gnuplot_run(const char *directory, const char *scripts, const char *name)
{
    char *const none[] = {NULL};
    char variable[PATH];
    char script[PATH];
    char *arguments[] = {"gnuplot", "-e", variable, script, NULL};
    int status = 0;
    pid_t pid;
    int error;

    snprintf(variable, sizeof(variable), "dir='%s'", directory);
    snprintf(script, sizeof(script), "%s/%s.gp", scripts, name);
    error = posix_spawnp(&pid, "gnuplot", NULL, NULL, arguments, environ ? environ : none);
    if (error != 0) {
        return error;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status == 0 ? 0 : EIO;
}

/* Writes the data of one plot and draws it; says what came of it. */
static void plot_make(const struct plot *p, void (*data)(FILE *, const struct plot *),
                      const char *directory, const char *scripts, const char *name)
{
    char path[PATH];
    FILE *file;
    int error;

    snprintf(path, sizeof(path), "%s/%s.dat", directory, name);
    file = fopen(path, "we");
    if (file == NULL) {
        fprintf(stderr, "bench: cannot write %s: %s\n", path, strerror(errno));
        return;
    }
    data(file, p);
    fclose(file);
    error = gnuplot_run(directory, scripts, name);
    if (error == ENOENT) {
        printf("no plot %s.svg: gnuplot is not installed; its data are in %s\n", name, path);
    } else if (error != 0) {
        printf("no plot %s.svg: gnuplot failed; its data are in %s\n", name, path);
    } else {
        printf("plot: %s/%s.svg\n", directory, name);
    }
}

void plot_draw(const struct plot *p, const char *directory, const char *scripts)
{
    putchar('\n');
    fflush(stdout);
    if (p->fork_count > 0) {
        plot_make(p, forks_write, directory, scripts, "fork_time");
    }
    if (p->write_count > 0) {
        plot_make(p, writes_write, directory, scripts, "first_write");
    }
}
