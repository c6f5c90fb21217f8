/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the program have in common: figures, and how one is measured. */
#ifndef FIGURES_H
#define FIGURES_H

#include "../../system/xc/xc.h"

#include "marks.h"

enum figure {
    NULL_CALL = 1,
    INFO,
    PAUSE,
    UNPAUSE,
    MAP,
    UNMAP,
    MAP_FORK,
    UNMAP_FORK,
    POPULATE,
    POPULATE_USED,
    CREATE,
    DESTROY,
    RUN,
    FORK,
    RUN_FORK,
    CLEAVE_FORK,
    BUILD,
    BOOT
};

#define MEASURE(figure, ...)                                                                       \
    do {                                                                                           \
        MARK_HERE(MARK_BEGIN, figure);                                                             \
        __VA_ARGS__;                                                                               \
        MARK_HERE(MARK_END, figure);                                                               \
    } while (0)

/* Boots Linux as a guest, several times (boot.c). */
void boots(void);

#endif
