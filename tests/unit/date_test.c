/* SPDX-License-Identifier: BSD-2-Clause */
/* The date that a PC's clock tells, in each format, beside the C library's calendar. */
#include "../../hv/x86/date.h"

#include <string.h>
#include <time.h>

#include "test.h"

#define BINARY 4u
#define ALL_HOURS 2u
#define PM 0x80u

static uint8_t bcd(unsigned n) { return (uint8_t)(n / 10 << 4 | n % 10); }

/* The clock's registers at a time, in the format `mode`. */
static struct rtc_fields fields_at(time_t at, uint8_t mode)
{
    struct tm tm;
    gmtime_r(&at, &tm);
    unsigned hour = (unsigned)tm.tm_hour, year = (unsigned)tm.tm_year + 1900;
    unsigned shown = mode & ALL_HOURS ? hour : hour % 12 == 0 ? 12 : hour % 12;
    uint8_t value[] = {(uint8_t)tm.tm_sec,   (uint8_t)tm.tm_min,       (uint8_t)shown,
                       (uint8_t)tm.tm_mday,  (uint8_t)(tm.tm_mon + 1), (uint8_t)(year % 100),
                       (uint8_t)(year / 100)};
    struct rtc_fields fields;
    for (unsigned i = 0; i < sizeof(value) && !(mode & BINARY); i++) {
        value[i] = bcd(value[i]);
    }
    memcpy(&fields, value, sizeof(value));
    if (!(mode & ALL_HOURS) && hour >= 12) {
        fields.hour |= PM;
    }
    fields.mode = mode;
    return fields;
}

static const struct mode_case {
    const char *label;
    uint8_t mode;
} modes[] = {
    {"bcd/12", 0}, {"bcd/24", ALL_HOURS}, {"binary/12", BINARY}, {"binary/24", BINARY | ALL_HOURS}};

/* Each day of five centuries at some second of it, and each second of a leap day. */
TEST_TABLE(every_day, modes)
{
    for (time_t at = 0; at < (time_t)500 * 365 * 86400; at += 86400 - 77) {
        struct rtc_fields fields = fields_at(at, row->mode);
        struct date date = date_of(&fields);
        REQUIRE_EQ(date_seconds(&date), at);
    }
    for (time_t at = 951782400; at < 951782400 + 2 * 86400; at++) { /* 2000-02-29 */
        struct rtc_fields fields = fields_at(at, row->mode);
        struct date date = date_of(&fields);
        REQUIRE_EQ(date_seconds(&date), at);
    }
}

/* Clocks without a century register. */
TEST(centuries)
{
    struct rtc_fields fields = {.day = 1, .month = 1, .year = 0x26, .mode = ALL_HOURS};
    CHECK_EQ(date_of(&fields).year, 2026);
    fields.century = 0xff;
    CHECK_EQ(date_of(&fields).year, 2026);
    fields.century = 0x19;
    fields.year = 0x70;
    CHECK_EQ(date_of(&fields).year, 1970);
    struct date date = date_of(&fields);
    CHECK_EQ(date_seconds(&date), 0);
    fields.century = 0x20;
    CHECK_EQ(date_of(&fields).year, 2070);
}

/* What no clock tells: a machine has none, or it lost its battery. */
static const struct field_case {
    const char *label;
    struct rtc_fields fields;
    bool legal;
} fields_told[] = {
    {"first", {.day = 1, .month = 1, .mode = ALL_HOURS}, true},
    {"last", {0x59, 0x59, 0x23, 0x31, 0x12, 0x99, 0x20, ALL_HOURS}, true},
    {"leap_second", {0x60, 0x59, 0x23, 0x30, 0x06, 0x15, 0x20, ALL_HOURS}, true},
    {"midnight/12", {0, 0, 0x12, 1, 1, 0x26, 0x20, 0}, true},
    {"zeros", {.mode = 0}, false},
    {"zeros/24", {.mode = ALL_HOURS}, false},
    {"ones", {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false},
    {"month_0", {.day = 1, .mode = ALL_HOURS}, false},
    {"month_13", {.day = 1, .month = 0x13, .mode = ALL_HOURS}, false},
    {"day_0", {.month = 1, .mode = ALL_HOURS}, false},
    {"day_32", {.day = 0x32, .month = 1, .mode = ALL_HOURS}, false},
    {"hour_24", {.hour = 0x24, .day = 1, .month = 1, .mode = ALL_HOURS}, false},
    {"minute_60", {.minute = 0x60, .day = 1, .month = 1, .mode = ALL_HOURS}, false},
    {"second_61", {.second = 0x61, .day = 1, .month = 1, .mode = ALL_HOURS}, false},
};

TEST_TABLE(legal, fields_told)
{
    struct date date = date_of(&row->fields);
    CHECK_EQ(date_is_legal(&date), row->legal);
}

/* The clock's nanoseconds have 64 bits, which last until 2554. */
TEST(nanoseconds_fit)
{
    struct rtc_fields fields = {0x59, 0x59, 0x23, 0x31, 0x12, 0x99, 0x24, ALL_HOURS};
    struct date date = date_of(&fields);
    CHECK_EQ(date.year, 2499);
    CHECK(date_seconds(&date) < UINT64_MAX / 1000000000);
    fields.century = 0x26;
    fields.year = 0;
    date = date_of(&fields);
    CHECK_EQ(date.year, 2000);
}
