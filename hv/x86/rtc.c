/* SPDX-License-Identifier: BSD-2-Clause */
/* The date, read once from the clock that a PC keeps running (Motorola MC146818; the century by
 * convention in byte 0x32), in UTC. */
#include "time.h"

#include "date.h"
#include "platform.h"

enum { CMOS_INDEX = 0x70, CMOS_DATA = 0x71 };
enum { RTC_SECOND = 0, RTC_MINUTE = 2, RTC_HOUR = 4, RTC_DAY = 7, RTC_MONTH = 8, RTC_YEAR = 9 };
enum { RTC_A = 0xa, RTC_B = 0xb, RTC_CENTURY = 0x32 };
enum { A_UPDATING = 0x80, TRIES = 100000 };

static uint64_t boot_ns; /* since 1970, when the TSC was zero */

static uint8_t cmos(uint8_t index)
{
    outb(CMOS_INDEX, index);
    return inb(CMOS_DATA);
}

/* All fields twice the same, and no update meanwhile. False when that never happens. */
static bool read_fields(struct rtc_fields *fields)
{
    static const uint8_t index[] = {RTC_SECOND, RTC_MINUTE, RTC_HOUR,    RTC_DAY,
                                    RTC_MONTH,  RTC_YEAR,   RTC_CENTURY, RTC_B};
    uint8_t *field = (uint8_t *)fields;
    _Static_assert(sizeof(index) == sizeof(*fields), "one for each");
    __builtin_memset(fields, 0xff, sizeof(*fields));
    for (unsigned tries = 0; tries < TRIES; tries++) {
        bool same = !(cmos(RTC_A) & A_UPDATING);
        for (unsigned i = 0; i < sizeof(index) && same; i++) {
            uint8_t value = cmos(index[i]);
            same = field[i] == value;
            field[i] = value;
        }
        if (same) {
            return true;
        }
    }
    return false;
}

void rtc_init(void)
{
    struct rtc_fields fields;
    bool found = read_fields(&fields);
    struct date date = date_of(&fields);
    if (!found || !date_is_legal(&date)) {
        print("time: no real-time clock: the date is not known\n");
        return;
    }
    boot_ns = date_seconds(&date) * UINT64_C(1000000000) - tsc_to_ns(read_tsc());
    print("time: %u-%02u-%02u %02u:%02u:%02u UTC\n", date.year, date.month, date.day, date.hour,
          date.minute, date.second);
}

uint64_t wall_clock_ns(void) { return boot_ns + tsc_to_ns(read_tsc()); }
