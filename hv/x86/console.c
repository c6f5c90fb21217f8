/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Console on COM1 (a 16550 at 0x3f8) and on port 0xE9, which Bochs and QEMU's isa-debugcon have.
 * One lock around each call. Every wait is bounded: a UART that does not answer is given up.
 */
#include "console.h"

#include "console_log.h"
#include "format.h"
#include "platform.h"

enum { COM1 = 0x3f8, DEBUG_PORT = 0xe9 };
enum {
    UART_DATA,
    UART_ENABLE,
    UART_FIFO,
    UART_LINE,
    UART_MODEM,
    UART_STATUS,
    UART_6,
    UART_SCRATCH
};
enum { STATUS_DATA = 0x01, STATUS_EMPTY = 0x20, STATUS_SENT = 0x40 };
enum { POLLS = 100000 };

static struct {
    uint32_t lock;
    bool uart, debug_port, broken;
} console;

static uint8_t uart_read(unsigned reg) { return inb((uint16_t)(COM1 + reg)); }
static void uart_write(unsigned reg, uint8_t value) { outb((uint16_t)(COM1 + reg), value); }

static bool uart_present(void)
{
    uart_write(UART_SCRATCH, 0x5a);
    if (uart_read(UART_SCRATCH) != 0x5a) {
        return false;
    }
    uart_write(UART_SCRATCH, 0xa5);
    return uart_read(UART_SCRATCH) == 0xa5;
}

void console_init(void)
{
    console.debug_port = inb(DEBUG_PORT) == DEBUG_PORT; /* both emulators read back so */
    console.uart = uart_present();
    if (!console.uart) {
        return;
    }
    uart_write(UART_ENABLE, 0);
    uart_write(UART_LINE, 0x80); /* the next two are the divisor: 115200 / 1 */
    uart_write(UART_DATA, 1);
    uart_write(UART_ENABLE, 0);
    uart_write(UART_LINE, 0x03);
    uart_write(UART_FIFO, 0x07);
    uart_write(UART_MODEM, 0x03);
}

static void uart_wait(uint8_t status)
{
    for (unsigned i = 0; !(uart_read(UART_STATUS) & status); i++) {
        if (i == POLLS) {
            console.uart = false;
            return;
        }
        cpu_pause();
    }
}

static void uart_put(char c)
{
    if (console.uart) {
        uart_wait(STATUS_EMPTY);
        uart_write(UART_DATA, (uint8_t)c);
    }
}

static void put(void *unused, char c)
{
    (void)unused;
    if (console.debug_port) {
        outb(DEBUG_PORT, (uint8_t)c);
    }
    if (c == '\n') {
        uart_put('\r');
    }
    uart_put(c);
}

static void put_own(void *unused, char c)
{
    put(unused, c);
    console_log_put(c);
}

static bool broken(void) { return __atomic_load_n(&console.broken, __ATOMIC_ACQUIRE); }

static void lock(void)
{
    while (__atomic_exchange_n(&console.lock, 1, __ATOMIC_ACQUIRE) != 0 && !broken()) {
        cpu_pause();
    }
}

static void unlock(void) { __atomic_store_n(&console.lock, 0, __ATOMIC_RELEASE); }

void console_break_lock(void) { __atomic_store_n(&console.broken, true, __ATOMIC_RELEASE); }

void console_drain(void)
{
    if (console.uart) {
        uart_wait(STATUS_SENT);
    }
}

void vprint(const char *format, va_list arguments)
{
    lock();
    format_to(put_own, NULL, format, arguments);
    unlock();
}

void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprint(format, arguments);
    va_end(arguments);
}

void console_write(const char *bytes, uint64_t count)
{
    lock();
    for (uint64_t i = 0; i < count; i++) {
        put(NULL, bytes[i]);
    }
    unlock();
}

uint32_t console_log(uint32_t *from, bool oldest, char *to, uint32_t room)
{
    lock();
    *from = oldest ? console_log_first() : *from;
    uint32_t count = console_log_take(from, to, room);
    unlock();
    return count;
}

void console_log_clear(uint32_t before)
{
    lock();
    console_log_drop(before);
    unlock();
}

int console_read(void)
{
    int c = -1;
    lock();
    if (console.uart && (uart_read(UART_STATUS) & STATUS_DATA)) {
        c = uart_read(UART_DATA);
    }
    unlock();
    return c;
}
