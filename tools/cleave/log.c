/* SPDX-License-Identifier: BSD-2-Clause */
/* The command log: what the hypervisor printed, of which it keeps the newest 16 KiB. */
#include "command.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <xenctrl.h>

#define PART 16384u
#define LOOK_MS 200

static volatile sig_atomic_t stopped;

static void stop(int signal) { stopped = signal; }

/* What there is behind `*index`; negative: errno says why not. */
static int read_log(xc_interface *xc, char part[PART], bool further, uint32_t *index)
{
    unsigned count = PART;
    return xc_readconsolering(xc, part, &count, 0, further, index) == 0 ? (int)count : -1;
}

static void show_log(struct run *run, xc_interface *xc)
{
    static char part[PART];
    uint32_t index = 0;
    bool follow = run->options.follow;
    int count = read_log(xc, part, false, &index);
    if (count >= 0 && run->options.json) {
        for (int i = 0; i < count; i++) { /* what is typed at the debug console is in it, too */
            if ((part[i] < ' ' || part[i] > '~') && part[i] != '\n') {
                part[i] = '?';
            }
        }
        put(run->result, "text", json_stringn(part, (size_t)count));
        return;
    }
    while (count >= 0 && stopped == 0) {
        fwrite(part, 1, (size_t)count, stdout);
        if (fflush(stdout) != 0 || (!follow && count == 0)) {
            return; /* a failure is said in the end */
        }
        if (follow && count == 0) {
            nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
        }
        count = read_log(xc, part, true, &index);
    }
    if (count < 0) {
        failed_here(run, REFUSED, NULL, "the hypervisor's log: %s", strerror(errno));
    }
}

void run_log(struct run *run)
{
    struct sigaction action = {.sa_handler = stop};
    xentoollog_logger *logger =
        (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    xc_interface *xc = xc_interface_open(logger, NULL, 0);
    if (xc == NULL) {
        failed_here(run, UNREACHABLE, NULL, "libxenctrl: %s", strerror(errno));
    } else {
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGHUP, &action, NULL);
        show_log(run, xc);
        xc_interface_close(xc);
    }
    xtl_logger_destroy(logger);
}
