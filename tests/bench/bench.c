/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The recorder of the benchmarks: takes figures, prints them as a table section by section, and
 * keeps results.json, a list that the benchmarks of several commands share.
 */

#define _GNU_SOURCE
#include "bench.h"
#include "plot.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS_MAX 64 /* in one section */
#define TEXT_MAX 32

/* A row of the section that is not printed yet; the strings are its own. */
struct kept_row {
    struct bench_row row;
    char *name;
    char *unit;
    char *note;
};

struct bench {
    char *directory;
    char *command;
    bool keep_results;
    struct bench_base base;
    json_t *figures; /* of this run */
    char *title;
    struct kept_row rows[ROWS_MAX];
    size_t row_count;
    unsigned with_goal;
    unsigned met;
    struct plot plot;
};

/* Where memory for a few words is missing there is nothing to measure. */
static void *must(void *pointer)
{
    if (pointer == NULL) {
        fputs("bench: out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    return pointer;
}

/* Makes the directory and those above it. */
static bool directory_make(const char *path)
{
    char *copy = must(strdup(path));
    char *slash;
    bool ok;

    for (slash = strchr(copy + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(copy, 0777);
        *slash = '/';
    }
    ok = mkdir(copy, 0777) == 0 || errno == EEXIST;
    free(copy);
    return ok;
}

/* All that can be measured, not measured. */
static void baselines_clear(struct bench_base *base)
{
    size_t i;

    memset(base, 0, sizeof(*base));
    for (i = 0; i < LINUX_BACKINGS; i++) {
        linux_fork_clear(&base->fork[i]);
    }
    bare_costs_clear(&base->bare);
    base->empty_fork_ns = NAN;
}

struct bench *bench_open(const char *directory, const char *command, bool keep_results)
{
    struct bench *b;

    if (!directory_make(directory)) {
        fprintf(stderr, "bench: cannot make %s: %s\n", directory, strerror(errno));
        return NULL;
    }
    b = must(calloc(1, sizeof(*b)));
    b->directory = must(strdup(directory));
    b->command = must(strdup(command));
    b->keep_results = keep_results;
    b->figures = must(json_array());
    baselines_clear(&b->base);
    return b;
}

const struct bench_base *bench_baselines(const struct bench *b) { return &b->base; }

void bench_set_baselines(struct bench *b, const struct bench_base *base) { b->base = *base; }

/* Whether the goal of a row is met. */
static bool row_met(const struct bench_row *row)
{
    switch (row->rule) {
    case BENCH_NO_GOAL:
        return true;
    case BENCH_AT_MOST:
        return row->value <= row->goal;
    case BENCH_AT_LEAST:
        return row->value >= row->goal;
    }
    return false;
}

/* A number in about four digits, as people write it. */
static void number_print(char text[TEXT_MAX], double value)
{
    double size = fabs(value);
    int digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;

    if (isnan(value)) {
        snprintf(text, TEXT_MAX, "-");
    } else if (digits == 0 || value == floor(value)) {
        snprintf(text, TEXT_MAX, "%.0f", value);
    } else {
        snprintf(text, TEXT_MAX, "%.*f", digits, value);
    }
}

/* The words of the columns "goal" and "met". */
static void verdict_print(char goal[TEXT_MAX], char met[TEXT_MAX], const struct bench_row *row)
{
    char number[TEXT_MAX];
    double factor = row->rule == BENCH_AT_MOST ? row->value / row->goal : row->goal / row->value;

    if (row->rule == BENCH_NO_GOAL) {
        snprintf(goal, TEXT_MAX, "-");
        snprintf(met, TEXT_MAX, "-");
        return;
    }
    number_print(number, row->goal);
    snprintf(goal, TEXT_MAX, "%s %.20s", row->rule == BENCH_AT_MOST ? "<=" : ">=", number);
    if (row_met(row)) {
        snprintf(met, TEXT_MAX, "yes");
    } else if (isnan(row->value)) {
        snprintf(met, TEXT_MAX, "NOT MEASURED");
    } else if (isfinite(factor)) {
        snprintf(met, TEXT_MAX, "MISSED by %.2fx", factor);
    } else {
        snprintf(met, TEXT_MAX, "MISSED");
    }
}

/* Prints one row of the table. */
static void row_print(const struct bench_row *row)
{
    char value[TEXT_MAX];
    char goal[TEXT_MAX];
    char met[TEXT_MAX];
    char ratio[TEXT_MAX] = "";

    number_print(value, row->value);
    verdict_print(goal, met, row);
    if (row->ratio > 0) {
        char number[TEXT_MAX];

        number_print(number, row->ratio);
        snprintf(ratio, sizeof(ratio), "%.20sx", number);
    }
    printf("  %-50s %10s %-7s %-9s %-16s %9s  %s\n", row->name, value, row->unit, goal, met, ratio,
           row->note);
}

/* Prints the rows of the section that ends, and forgets them. */
static void section_print(struct bench *b)
{
    size_t i;

    if (b->row_count > 0) {
        printf("\n%s\n  %-50s %10s %-7s %-9s %-16s %9s  %s\n", b->title ? b->title : "Figures",
               "name", "value", "unit", "goal", "met", "ratio", "notes");
    }
    for (i = 0; i < b->row_count; i++) {
        row_print(&b->rows[i].row);
        free(b->rows[i].name);
        free(b->rows[i].unit);
        free(b->rows[i].note);
    }
    b->row_count = 0;
    fflush(stdout);
}

void bench_section(struct bench *b, const char *title)
{
    section_print(b);
    free(b->title);
    b->title = must(strdup(title));
}

/* A number for results.json, where NAN is null. */
static json_t *json_number_or_null(double value)
{
    return must(isfinite(value) ? json_real(value) : json_null());
}

/* Adds the figure to those of this run. `note` is there only where the row was scaled down. */
static void figure_add(struct bench *b, const struct bench_row *row)
{
    json_t *figure = must(json_object());
    bool goal = row->rule != BENCH_NO_GOAL;
    int failed = 0;

    failed |= json_object_set_new(figure, "name", json_string(row->name));
    failed |= json_object_set_new(figure, "value", json_number_or_null(row->value));
    failed |= json_object_set_new(figure, "unit", json_string(row->unit));
    failed |= json_object_set_new(figure, "goal", json_number_or_null(goal ? row->goal : NAN));
    failed |= json_object_set_new(figure, "met", goal ? json_boolean(row_met(row)) : json_null());
    failed |= json_object_set_new(figure, "command", json_string(b->command));
    if (row->scaled != NULL) {
        failed |= json_object_set_new(figure, "note", json_string(row->scaled));
    }
    failed |= json_array_append_new(b->figures, figure);
    if (failed != 0) {
        fprintf(stderr, "bench: %s is not valid UTF-8 or too long\n", row->name);
        exit(EXIT_FAILURE);
    }
}

void bench_record(struct bench *b, const struct bench_row *row)
{
    struct kept_row *kept;
    const char *note = row->note ? row->note : "";
    int n;

    if (b->row_count == ROWS_MAX) {
        section_print(b);
    }
    kept = &b->rows[b->row_count++];
    kept->row = *row;
    kept->row.name = kept->name = must(strdup(row->name));
    kept->row.unit = kept->unit = must(strdup(row->unit));
    if (row->scaled != NULL) {
        n = asprintf(&kept->note, "SCALED: %s%s%s", row->scaled, *note ? "; " : "", note);
    } else {
        n = asprintf(&kept->note, "%s", note);
    }
    kept->row.note = must(n < 0 ? NULL : kept->note);
    kept->row.scaled = NULL;

    figure_add(b, row);
    if (row->rule != BENCH_NO_GOAL) {
        b->with_goal++;
        b->met += row_met(row);
    }
}

void bench_plot_fork(struct bench *b, const char *series, uint64_t bytes, double ns)
{
    plot_add_fork(&b->plot, series, bytes, ns);
}

void bench_plot_write(struct bench *b, const char *label, double ns)
{
    plot_add_write(&b->plot, label, ns);
}

void bench_draw(struct bench *b, const char *scripts)
{
    section_print(b);
    plot_draw(&b->plot, b->directory, scripts);
}

/* Whether a figure of an earlier run has to go: this command, or this run's name for it. */
static bool figure_replaced(const struct bench *b, const json_t *old)
{
    const char *name = json_string_value(json_object_get(old, "name"));
    const char *command = json_string_value(json_object_get(old, "command"));
    size_t i;
    json_t *figure;

    if (name == NULL || command == NULL || strcmp(command, b->command) == 0) {
        return true;
    }
    json_array_foreach(b->figures, i, figure)
    {
        if (strcmp(name, json_string_value(json_object_get(figure, "name"))) == 0) {
            return true;
        }
    }
    return false;
}

/* The list that results.json will hold: what others wrote to it, then the figures of this run. */
static json_t *figures_merge(const struct bench *b, const char *path)
{
    json_t *old = json_load_file(path, 0, NULL);
    json_t *all = must(json_array());
    json_t *figure;
    size_t i;

    if (json_is_array(old)) {
        json_array_foreach(old, i, figure)
        {
            if (!figure_replaced(b, figure)) {
                json_array_append(all, figure);
            }
        }
    } else if (access(path, F_OK) == 0) {
        fprintf(stderr, "bench: %s was not a list of figures and is begun anew\n", path);
    }
    json_decref(old);
    json_array_extend(all, b->figures);
    return all;
}

/* Writes results.json in one step, so that a reader never sees half of it. */
static bool results_write(const struct bench *b)
{
    char *path = NULL;
    char *fresh = NULL;
    json_t *all;
    bool ok;

    if (asprintf(&path, "%s/results.json", b->directory) < 0 ||
        asprintf(&fresh, "%s.new", path) < 0) {
        must(NULL);
    }
    all = figures_merge(b, path);
    ok = json_dump_file(all, fresh, JSON_INDENT(2) | JSON_REAL_PRECISION(8)) == 0 &&
         rename(fresh, path) == 0;
    if (ok) {
        printf("\nresults: %s (%zu figures)\n", path, json_array_size(all));
    } else {
        fprintf(stderr, "bench: cannot write %s: %s\n", path, strerror(errno));
    }
    json_decref(all);
    free(path);
    free(fresh);
    return ok;
}

bool bench_close(struct bench *b)
{
    bool ok;

    section_print(b);
    ok = b->keep_results || results_write(b);
    printf("%zu figures, %u with a goal: %u met, %u missed\n", json_array_size(b->figures),
           b->with_goal, b->met, b->with_goal - b->met);
    json_decref(b->figures);
    free(b->title);
    free(b->directory);
    free(b->command);
    free(b);
    return ok;
}
