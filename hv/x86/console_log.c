/* SPDX-License-Identifier: BSD-2-Clause */
/* What the hypervisor printed; see console_log.h. Positions are compared by their difference. */
#include "console_log.h"

static char ring[CONSOLE_LOG_SIZE];
/* The bytes that are given: at most the ring. They pass 0 early, so that this is no rare thing. */
static uint32_t begins = -CONSOLE_LOG_SIZE, ends = -CONSOLE_LOG_SIZE;

void console_log_put(char c)
{
    ring[ends % CONSOLE_LOG_SIZE] = c;
    ends++;
    if (ends - begins > CONSOLE_LOG_SIZE) {
        begins = ends - CONSOLE_LOG_SIZE;
    }
}

uint32_t console_log_first(void) { return begins; }

uint32_t console_log_take(uint32_t *from, char *to, uint32_t room)
{
    uint32_t count = 0;
    if (*from - begins > ends - begins) {
        *from = begins;
    }
    for (; count < room && *from != ends; (*from)++) {
        to[count++] = ring[*from % CONSOLE_LOG_SIZE];
    }
    return count;
}

void console_log_drop(uint32_t before)
{
    if (before - begins <= ends - begins) {
        begins = before;
    }
}
