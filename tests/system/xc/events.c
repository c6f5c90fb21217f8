/* SPDX-License-Identifier: BSD-2-Clause */
/* VIRQ_DOM_EXC tells that a domain has ended, and that one is gone. */
#include "xc.h"

#include <poll.h>
#include <xenevtchn.h>

static xenevtchn_handle *events;

/* The port that is pending within so many milliseconds; -1: none. */
static int pending(int ms)
{
    struct pollfd file = {.fd = xenevtchn_fd(events), .events = POLLIN};
    if (poll(&file, 1, ms) != 1) {
        return -1;
    }
    int port = (int)xenevtchn_pending(events);
    CHECK_EQ(xenevtchn_unmask(events, (evtchn_port_t)port), 0);
    return port;
}

void test(void)
{
    events = xenevtchn_open(NULL, 0);
    CHECK(events != NULL);
    if (events == NULL) {
        return;
    }
    int port = (int)xenevtchn_bind_virq(events, VIRQ_DOM_EXC);
    ANSWER_EQ(port > 0, 1);
    while (pending(200) == port) { /* what is pending from before */
    }
    uint32_t child = fork_template(0);
    ANSWER_EQ(pending(500) == -1, 1);
    destroy(child);
    ANSWER_EQ(pending(5000) == port, 1);
    while (pending(200) == port) {
    }
    xenevtchn_close(events);
}
