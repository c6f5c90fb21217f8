/* SPDX-License-Identifier: BSD-2-Clause */
/* Dates of the Gregorian calendar. */
#ifndef X86_DATE_H
#define X86_DATE_H

#include <stdbool.h>
#include <stdint.h>

/* What a PC's clock tells: as its registers hold it (MC146818, registers 0 to 9 and 0x32). */
struct rtc_fields {
    uint8_t second, minute, hour, day, month, year, century;
    uint8_t mode; /* register B */
};

struct date {
    uint32_t year, month, day, hour, minute, second;
};

/* The date, in whichever of its four formats the clock keeps it. A century that cannot be, or whose
 * nanoseconds since 1970 do not fit in 64 bits, is taken for the 21st. */
struct date date_of(const struct rtc_fields *fields);
/* Is each field, but the year, one that a date can have? No month is asked for its last day. */
bool date_is_legal(const struct date *date);
/* Seconds from 1970-01-01 00:00 to a legal date of 1970 or later. */
uint64_t date_seconds(const struct date *date);

#endif
