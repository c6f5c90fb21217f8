/* SPDX-License-Identifier: BSD-2-Clause */
/* The date, read once from the clock that a PC keeps running (Motorola MC146818; the century by
 * convention in byte 0x32), in UTC. */
#include "time.h"

#include "platform.h"

enum { CMOS_INDEX = 0x70, CMOS_DATA = 0x71 };
enum { RTC_SECOND = 0, RTC_MINUTE = 2, RTC_HOUR = 4, RTC_DAY = 7, RTC_MONTH = 8, RTC_YEAR = 9 };
enum { RTC_A = 0xa, RTC_B = 0xb, RTC_CENTURY = 0x32 };
enum { A_UPDATING = 0x80, B_24_HOURS = 2, B_BINARY = 4, PM = 0x80 };
enum { FIELDS = 7, TRIES = 100000 };

static uint64_t boot_ns; /* since 1970, when the TSC was zero */

static uint8_t cmos(uint8_t index)
{
    outb(CMOS_INDEX, index);
    return inb(CMOS_DATA);
}

/* All fields twice the same, and no update meanwhile. False when that never happens. */
static bool read_fields(uint8_t field[FIELDS])
{
    static const uint8_t index[FIELDS] = {RTC_SECOND, RTC_MINUTE, RTC_HOUR,   RTC_DAY,
                                          RTC_MONTH,  RTC_YEAR,   RTC_CENTURY};
    for (unsigned i = 0; i < FIELDS; i++) {
        field[i] = 0xff;
    }
    for (unsigned tries = 0; tries < TRIES; tries++) {
        bool same = !(cmos(RTC_A) & A_UPDATING);
        for (unsigned i = 0; i < FIELDS && same; i++) {
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

static uint32_t number(uint8_t value, bool binary)
{
    return binary ? value : (value >> 4) * 10u + (value & 0xf);
}

/* Days from 1970-01-01 to a date of the Gregorian calendar, years beginning in March so that the
 * leap day is the last. */
static uint64_t days(uint32_t year, uint32_t month, uint32_t day)
{
    year -= month <= 2;
    uint32_t from_march = (month + 9) % 12;
    uint64_t leap = (uint64_t)year / 4 - year / 100 + year / 400;
    return (uint64_t)year * 365 + leap + (153u * from_march + 2) / 5 + day - 1 - 719468;
}

void rtc_init(void)
{
    uint8_t field[FIELDS];
    if (!read_fields(field)) {
        print("time: no real-time clock: the date is not known\n");
        return;
    }
    uint8_t b = cmos(RTC_B);
    bool binary = b & B_BINARY;
    uint32_t hour = number(field[2] & (b & B_24_HOURS ? 0xff : 0x7f), binary);
    if (!(b & B_24_HOURS)) {
        hour = hour % 12 + (field[2] & PM ? 12 : 0);
    }
    uint32_t year = number(field[5], binary) + 100 * number(field[6], binary);
    year = year < 1970 || year > 2999 ? 2000 + number(field[5], binary) : year;
    uint64_t seconds = days(year, number(field[4], binary), number(field[3], binary)) * 86400 +
                       hour * 3600 + number(field[1], binary) * 60 + number(field[0], binary);
    boot_ns = seconds * UINT64_C(1000000000) - tsc_to_ns(read_tsc());
    print("time: %u-%02u-%02u %02u:%02u:%02u UTC\n", year, number(field[4], binary),
          number(field[3], binary), hour, number(field[1], binary), number(field[0], binary));
}

uint64_t wall_clock_ns(void) { return boot_ns + tsc_to_ns(read_tsc()); }
