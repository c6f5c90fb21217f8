/* SPDX-License-Identifier: BSD-2-Clause */
/* Dates of the Gregorian calendar; see date.h. */
#include "date.h"

enum { B_24_HOURS = 2, B_BINARY = 4, PM = 0x80 };

static uint32_t number(uint8_t value, bool binary)
{
    return binary ? value : (value >> 4) * 10u + (value & 0xf);
}

struct date date_of(const struct rtc_fields *fields)
{
    bool binary = fields->mode & B_BINARY, all_hours = fields->mode & B_24_HOURS;
    uint8_t hour = fields->hour & (all_hours ? 0xff : 0x7f);
    struct date date = {.month = number(fields->month, binary),
                        .day = number(fields->day, binary),
                        .hour = number(hour, binary),
                        .minute = number(fields->minute, binary),
                        .second = number(fields->second, binary)};
    if (!all_hours) {
        date.hour = date.hour % 12 + (fields->hour & PM ? 12 : 0);
    }
    date.year = number(fields->year, binary);
    uint32_t whole = date.year + 100 * number(fields->century, binary);
    date.year = whole < 1970 || whole > 2499 ? 2000 + date.year : whole;
    return date;
}

bool date_is_legal(const struct date *date)
{
    return date->month >= 1 && date->month <= 12 && date->day >= 1 && date->day <= 31 &&
           date->hour <= 23 && date->minute <= 59 && date->second <= 60;
}

/* Years begin in March, so that the leap day is the last. */
static uint64_t days(uint32_t year, uint32_t month, uint32_t day)
{
    year -= month <= 2;
    uint32_t from_march = (month + 9) % 12;
    uint64_t leap = (uint64_t)year / 4 - year / 100 + year / 400;
    return (uint64_t)year * 365 + leap + (153u * from_march + 2) / 5 + day - 1 - 719468;
}

uint64_t date_seconds(const struct date *date)
{
    return days(date->year, date->month, date->day) * 86400 + date->hour * 3600 +
           date->minute * 60 + date->second;
}
