/* SPDX-License-Identifier: BSD-2-Clause */
/* Look-up in the table of symbols.S, made by symbols.sh: constant. */
#include "symbols.h"

#include "boot/boot.h"

/* Ascending; offsets from image_start and into symbol_names. */
struct symbol {
    uint32_t at, name;
};
extern const struct symbol symbol_table[];
extern const uint32_t symbol_count;
extern const char symbol_names[];

const char *symbol_name(uint64_t address, uint64_t *offset)
{
    uint64_t low = 0, high = symbol_count, at = address - (uint64_t)image_start;

    if (address < (uint64_t)image_start || address >= (uint64_t)text_end) {
        return NULL;
    }
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (symbol_table[middle].at <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return NULL;
    }
    *offset = at - symbol_table[low - 1].at;
    return symbol_names + symbol_table[low - 1].name;
}
