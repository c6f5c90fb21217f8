/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A catalogue of the operations that change spaces, each with a scene to run it
 * in: for tests that hold whatever the operation is. Works in both geometries.
 */
#ifndef ROWS_OPS_H
#define ROWS_OPS_H

#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "scene.h"

/* What the operations work on: memory of a shape in `scene.space`, and a fork
 * of it with a base that has written page 1. CPU 1 runs the parent, CPU 2 the
 * fork; both know all sampled pages. */
struct rows {
    struct space *child;   /* with a base */
    struct space *mapper;  /* an empty space that may map pages of others */
    struct space *made[2]; /* by fork and snapshot */
    struct channel *channel;
    uint32_t pin;
    uint64_t value; /* what space_write() writes */
};
extern struct rows rows;

struct row_op {
    const char *label;
    void (*prepare)(void); /* null: nothing more than rows_start() does */
    host_step_t *step;     /* may return CLEAVE_AGAIN; `arg` is null */
};
#define ROW_OPS 31u
extern const struct row_op row_ops[ROW_OPS];

/* Makes the scene and prepares `op` (null: none). */
void rows_start(enum shape shape, const struct row_op *op);
/* Both CPUs read what is mapped of the memory and around it, as far as they
 * may. */
void rows_touch(void);
/* Runs the operation to its end, with this budget for each call. */
/* Is this what it may end with? A collapse may find no block, or something in
 * its way. */
bool rows_done(const struct row_op *op, enum cleave_status status);
/* Both guests write to what is left of the memory. */
void rows_write_after(void);
enum cleave_status rows_run(const struct row_op *op, uint64_t budget);

/* The shapes that such a test runs at: all in the small geometry; of the real
 * one those that are quickly made, for what is repeated often. */
extern const struct shape_row rows_shapes[6];
unsigned rows_quick_shapes(void);

/* Ends the scene, what the operation made included. */
void rows_end(void);

/* Calls `visit` for every entry that is not zero of every table that a space of
 * the pool reaches, each table once. */
typedef void rows_entry_t(void *arg, pfn_t table, unsigned level, pte_t entry);
void rows_each_entry(rows_entry_t *visit, void *arg);

#endif
