/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command map: where a domain's memory is its own, where shared, and by which leaves; as a
 * picture of cells, as a drawing (SVG 1.1), or as a table of ranges.
 */
#include "command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define BLOCK (UINT64_C(2) << 20)
#define MIB 1048576.0
#define ORDERS 3u

/* Neighbours that are mapped alike. */
struct stretch {
    uint64_t at, end;
    struct cleave_lookup leaf; /* the first one */
};

struct map {
    struct run *run;
    const struct cleave_list *domain;
    struct stretch *all;
    size_t count, room;
    uint64_t alone[ORDERS], shared[ORDERS], unloaded; /* bytes */
};

/* --- Collecting ------------------------------------------------------------------------------- */

static bool same_kind(const struct cleave_lookup *a, const struct cleave_lookup *b)
{
    return a->kind == b->kind && a->order == b->order && a->rights == b->rights &&
           a->exclusive == b->exclusive;
}

static bool add_leaf(struct map *map, const struct cleave_lookup *leaf, uint64_t end)
{
    struct stretch *last = map->count != 0 ? &map->all[map->count - 1] : NULL;
    unsigned order = leaf->order < ORDERS ? leaf->order : ORDERS - 1;
    uint64_t *sum = leaf->kind != 2   ? &map->unloaded
                    : leaf->exclusive ? &map->alone[order]
                                      : &map->shared[order];
    *sum += end - leaf->at;
    if (last != NULL && last->end == leaf->at && same_kind(leaf, &last->leaf)) {
        last->end = end;
        return true;
    }
    if (map->count == map->room) {
        size_t room = 2 * map->room + 64;
        struct stretch *more = realloc(map->all, room * sizeof(*more));
        if (more == NULL) {
            failed_here(map->run, REFUSED, NULL, "no memory for %zu ranges", room);
            return false;
        }
        map->all = more;
        map->room = room;
    }
    map->all[map->count++] = (struct stretch){leaf->at, end, *leaf};
    return true;
}

static bool collect(struct map *map)
{
    uint64_t at = 0;
    struct progress progress = progress_begin(map->run);
    while (at < CLEAVE_MEMORY_END) {
        struct cleave_lookup leaf;
        int status =
            cleave_next_leaf(map->run->cleave, map->domain->domain, at, CLEAVE_MEMORY_END, &leaf);
        if (status != 0) {
            progress_end(&progress);
            failed(map->run, status, map->run->targets[0]);
            return false;
        }
        if (leaf.kind == 0) {
            break;
        }
        progress_tell(&progress, at, 0);
        at = (leaf.at | ((PAGE << 9 * leaf.order) - 1)) + 1;
        if (!add_leaf(map, &leaf, at)) {
            return false;
        }
    }
    progress_end(&progress);
    return true;
}

/* --- Cells ------------------------------------------------------------------------------------ */

/* What a cell shows: most of what is in it; both where some is its own and some shared. */
enum shade { NOTHING, ALONE_4K, ALONE_2M, ALONE_1G, SHARED_4K, SHARED_2M, SHARED_1G, BOTH, PAGED };
static const struct {
    char letter;
    const char *colour; /* of a terminal: ECMA-48 SGR */
    const char *fill;   /* of a drawing */
    const char *name;
} shades[] = {
    [NOTHING] = {'.', "2", "#eeeeee", "nothing"},
    [ALONE_4K] = {'p', "32", "#a1d99b", "private (4K)"},
    [ALONE_2M] = {'P', "1;32", "#31a354", "private (2M)"},
    [ALONE_1G] = {'@', "1;7;32", "#006d2c", "private (1G)"},
    [SHARED_4K] = {'s', "36", "#9ecae1", "shared (4K)"},
    [SHARED_2M] = {'S', "1;36", "#3182bd", "shared (2M)"},
    [SHARED_1G] = {'&', "1;7;36", "#08519c", "shared (1G)"},
    [BOTH] = {'x', "33", "#fdae6b", "private and shared"},
    [PAGED] = {'?', "35", "#756bb1", "not loaded"},
};
#define SHADES (sizeof(shades) / sizeof(shades[0]))

struct grid {
    const struct map *map;
    uint64_t cell; /* bytes of one */
    unsigned width;
};

static void weigh(const struct stretch *s, uint64_t bytes, uint64_t weight[SHADES])
{
    unsigned order = s->leaf.order < ORDERS ? s->leaf.order : ORDERS - 1;
    unsigned shade = s->leaf.kind != 2   ? PAGED
                     : s->leaf.exclusive ? ALONE_4K + order
                                         : SHARED_4K + order;
    weight[shade] += bytes;
}

/* The row from `at` on; `*next` is the first stretch that may reach it. False: it is empty. */
static bool shade_row(const struct grid *grid, uint64_t at, size_t *next, unsigned char *row)
{
    const struct map *map = grid->map;
    bool any = false;
    for (unsigned i = 0; i < grid->width; i++) {
        uint64_t from = at + i * grid->cell, to = from + grid->cell;
        uint64_t weight[SHADES] = {0};
        unsigned best = NOTHING;
        while (*next < map->count && map->all[*next].end <= from) {
            (*next)++;
        }
        for (size_t j = *next; j < map->count && map->all[j].at < to; j++) {
            uint64_t low = map->all[j].at > from ? map->all[j].at : from;
            uint64_t high = map->all[j].end < to ? map->all[j].end : to;
            weigh(&map->all[j], high - low, weight);
        }
        for (unsigned shade = ALONE_4K; shade < SHADES; shade++) {
            best = weight[shade] > weight[best] ? shade : best;
        }
        uint64_t alone = weight[ALONE_4K] + weight[ALONE_2M] + weight[ALONE_1G];
        uint64_t shared = weight[SHARED_4K] + weight[SHARED_2M] + weight[SHARED_1G];
        row[i] = (unsigned char)(alone != 0 && shared != 0 ? BOTH : best);
        any = any || row[i] != NOTHING;
    }
    return any;
}

/* The beginning of the row that has the next memory at or behind `at`; CLEAVE_MEMORY_END: none. */
static uint64_t next_row(const struct grid *grid, uint64_t at, size_t *next)
{
    const struct map *map = grid->map;
    uint64_t row = grid->cell * grid->width;
    while (*next < map->count && map->all[*next].end <= at) {
        (*next)++;
    }
    if (*next == map->count) {
        return CLEAVE_MEMORY_END;
    }
    uint64_t first = map->all[*next].at;
    return first <= at ? at : first - first % row;
}

/* Cells as small as the rows with something in them leave them, but not below 2 MiB. */
static struct grid choose_grid(const struct map *map, unsigned width, unsigned most)
{
    struct grid grid = {map, BLOCK, width};
    for (;; grid.cell *= 2) {
        uint64_t row = grid.cell * width;
        unsigned rows = 0;
        size_t next = 0;
        for (uint64_t at = 0; rows <= most; at += row, rows++) {
            at = next_row(&grid, at, &next);
            if (at == CLEAVE_MEMORY_END) {
                return grid;
            }
        }
    }
}

/* --- The terminal ----------------------------------------------------------------------------- */

static void summary(const struct map *map, char *text, size_t room)
{
    uint64_t alone = map->alone[0] + map->alone[1] + map->alone[2];
    uint64_t shared = map->shared[0] + map->shared[1] + map->shared[2];
    uint64_t huge = alone + shared - map->alone[0] - map->shared[0], all = alone + shared;
    snprintf(text, room, "%.1f MiB private, %.1f MiB shared, %.1f%% by 2M or 1G leaves",
             (double)alone / MIB, (double)shared / MIB,
             all != 0 ? (double)huge * 100 / (double)all : 0.0);
}

static const char *size_name(uint64_t bytes, char text[32])
{
    bool giga = bytes >= UINT64_C(1) << 30;
    snprintf(text, 32, "%" PRIu64 " %s", bytes >> (giga ? 30 : 20), giga ? "GiB" : "MiB");
    return text;
}

static void tell_cells(const struct run *run, const unsigned char *row, unsigned width,
                       bool coloured)
{
    for (unsigned i = 0; i < width; i++) {
        bool begins = i == 0 || row[i] != row[i - 1], ends = i + 1 == width || row[i] != row[i + 1];
        if (coloured && begins) {
            tell(run, "\033[%sm", shades[row[i]].colour);
        }
        tell(run, "%c%s", shades[row[i]].letter, coloured && ends ? "\033[0m" : "");
    }
}

static void tell_picture(const struct map *map)
{
    const struct run *run = map->run;
    struct winsize size = {.ws_col = 80, .ws_row = 24};
    char text[128], unit[32];
    unsigned char row[128];
    size_t next = 0;
    bool terminal = isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    unsigned columns = size.ws_col != 0 ? size.ws_col : 80; /* 0: the terminal does not know */
    unsigned width = columns >= 32 ? (columns - 14) / 16 * 16 : 16;
    width = width < 16 ? 16 : width < sizeof(row) ? width : sizeof(row);
    struct grid grid = choose_grid(map, width, size.ws_row >= 20 ? size.ws_row - 6u : 14);

    summary(map, text, sizeof(text));
    tell(run, "%u %s: %s\n", map->domain->domain, map->domain->name, text);
    uint64_t expected = 0;
    for (uint64_t at = 0; (at = next_row(&grid, at, &next)) < CLEAVE_MEMORY_END;) {
        if (at != expected) {
            tell(run, "         ...\n");
        }
        shade_row(&grid, at, &next, row);
        tell(run, "%012" PRIx64 " ", at);
        tell_cells(run, row, width, terminal);
        tell(run, "\n");
        at += grid.cell * width;
        expected = at;
    }
    tell(run, "one cell is %s:", size_name(grid.cell, unit));
    for (unsigned shade = 0; shade < SHADES; shade++) {
        unsigned char one = (unsigned char)shade;
        tell(run, "%s", shade == ALONE_4K || shade == SHARED_4K || shade == BOTH ? "\n  " : "  ");
        tell_cells(run, &one, 1, terminal);
        tell(run, " %s", shades[shade].name);
    }
    tell(run, "\n");
}

static const char *leaf_name(const struct cleave_lookup *leaf)
{
    static const char *const sizes[] = {"4K", "2M", "1G"};
    return leaf->kind != 2 ? "not-loaded" : leaf->order < ORDERS ? sizes[leaf->order] : "?";
}

static void put_ranges(struct map *map)
{
    struct run *run = map->run;
    json_t *all = json_array();
    uint64_t total = 0;
    for (size_t i = 0; i < map->count; i++) {
        const struct stretch *s = &map->all[i];
        char rights[] = {s->leaf.rights & 1 ? 'r' : '-', s->leaf.rights & 2 ? 'w' : '-',
                         s->leaf.rights & 4 ? 'x' : '-', '\0'};
        append(all, json_pack("{s:I,s:I,s:s,s:s,s:b}", "at", (json_int_t)s->at, "bytes",
                              (json_int_t)(s->end - s->at), "leaves", leaf_name(&s->leaf), "rights",
                              rights, "exclusive", s->leaf.exclusive != 0));
        if (run->options.table) {
            tell(run, "%012" PRIx64 " - %012" PRIx64 " %10" PRIu64 " KiB  %-10s %s  %s\n", s->at,
                 s->end, (s->end - s->at) >> 10, leaf_name(&s->leaf), rights,
                 s->leaf.exclusive ? "exclusive" : "shared");
        }
        total += s->end - s->at;
    }
    put(run->result, "ranges", all);
    put(run->result, "bytes", json_integer((json_int_t)total));
}

/* --- The drawing ------------------------------------------------------------------------------ */

#define SIDE 10u /* of a cell, and all other measures: user units, pixels of a screen */
#define WIDTH 64u
#define LEFT 110u
#define TOP 40u

static void put_escaped(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        const char *name = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : NULL;
        name = *text == '&' ? "&amp;" : *text == '"' ? "&quot;" : name;
        if (name != NULL) {
            fputs(name, to);
        } else {
            fputc(*text, to);
        }
    }
}

static void draw_row(FILE *to, const struct grid *grid, uint64_t at, const unsigned char *row,
                     unsigned y)
{
    fprintf(to, "<text x=\"10\" y=\"%u\">%012" PRIx64 "</text>\n", y + SIDE - 1, at);
    for (unsigned i = 0, end; i < grid->width; i = end) {
        for (end = i + 1; end < grid->width && row[end] == row[i];) {
            end++;
        }
        fprintf(to,
                "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\"><title>%#" PRIx64
                ", %" PRIu64 " MiB: %s</title></rect>\n",
                LEFT + i * SIDE, y, (end - i) * SIDE - 1, SIDE - 1, shades[row[i]].fill,
                at + i * grid->cell, (end - i) * grid->cell >> 20, shades[row[i]].name);
    }
}

static unsigned draw_rows(FILE *to, const struct grid *grid)
{
    unsigned char row[WIDTH];
    size_t next = 0;
    unsigned y = TOP;
    uint64_t expected = 0;
    for (uint64_t at = 0; (at = next_row(grid, at, &next)) < CLEAVE_MEMORY_END; y += SIDE) {
        y += at != expected ? SIDE : 0;
        shade_row(grid, at, &next, row);
        if (to != NULL) {
            draw_row(to, grid, at, row, y);
        }
        at += grid->cell * WIDTH;
        expected = at;
    }
    return y;
}

static void draw(FILE *to, const struct map *map)
{
    struct grid grid = choose_grid(map, WIDTH, 256);
    char text[128], unit[32];
    unsigned y = draw_rows(NULL, &grid) + SIDE;
    fprintf(to,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"%u\" height=\"%u\" "
            "font-family=\"monospace\" font-size=\"10\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
            LEFT + WIDTH * SIDE + SIDE, y + (unsigned)(SHADES + 1) / 2 * 15 + 2 * SIDE);
    summary(map, text, sizeof(text));
    fprintf(to, "<text x=\"10\" y=\"20\" font-size=\"14\">%u ", map->domain->domain);
    put_escaped(to, map->domain->name);
    fprintf(to, ": %s; one cell is %s</text>\n", text, size_name(grid.cell, unit));
    draw_rows(to, &grid);
    for (unsigned shade = 0; shade < SHADES; shade++) {
        unsigned x = LEFT + shade % 2 * 200, line = y + shade / 2 * 15;
        fprintf(to,
                "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\"/>"
                "<text x=\"%u\" y=\"%u\">%s</text>\n",
                x, line, SIDE - 1, SIDE - 1, shades[shade].fill, x + 2 * SIDE, line + SIDE - 1,
                shades[shade].name);
    }
    fputs("</svg>\n", to);
}

static void write_drawing(struct map *map)
{
    const char *path = map->run->options.svg;
    struct stat about;
    FILE *to = fopen(path, "w");
    bool good = to != NULL, regular = false;
    if (good) {
        regular = fstat(fileno(to), &about) == 0 && S_ISREG(about.st_mode);
        draw(to, map);
        good = fflush(to) == 0 && !ferror(to);
        int error = errno;
        fclose(to);
        errno = error;
    }
    if (!good) {
        failed_here(map->run, REFUSED, path, "%s", strerror(errno));
        if (regular) {
            unlink(path);
        }
        return;
    }
    put(map->run->result, "file", json_string(path));
    tell(map->run, "%u %s: drawn in %s\n", map->domain->domain, map->domain->name, path);
}

void run_map(struct run *run)
{
    struct cleave_list domain;
    struct map map = {.run = run, .domain = &domain};
    int status = cleave_find(run->cleave, run->targets[0], &domain);
    if (status != 0) {
        failed(run, status, run->targets[0]);
    } else if (collect(&map)) {
        if (run->options.svg != NULL) {
            write_drawing(&map);
        } else if (!run->options.table) {
            tell_picture(&map);
        }
    }
    put_ranges(&map);
    free(map.all);
}
