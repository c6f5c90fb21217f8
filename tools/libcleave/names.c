/* SPDX-License-Identifier: BSD-2-Clause */
/* Words for the numbers of the ABI. */
#include "handle.h"

static const struct {
    const char *name, *text;
} statuses[CLEAVE_STATUS_END - CLEAVE_ERROR_FIRST] = {
    {"ALIGN", "an address or size is not a multiple of what it must be"},
    {"RANGE", "a number is out of its range"},
    {"WRAP", "address and size go past the end of the address space"},
    {"COUNT", "a count or size is zero or too large"},
    {"ORDER", "no such size of a leaf"},
    {"RIGHTS", "no memory can have these rights"},
    {"POLICY", "the policy of the memory there does not allow it"},
    {"OVERLAP", "two ranges overlap"},
    {"EXISTS", "it is there already; choose another name or place"},
    {"NOT_MAPPED", "there is nothing"},
    {"NO_MEMORY", "the pool has no memory left; destroy domains that are not needed"},
    {"QUOTA",
     "more memory than the domain that pays may have; ask for less, or fork with a larger limit"},
    {"RESERVE", "so much memory cannot be reserved; fork fewer, or without a reservation"},
    {"OVERFLOW", "too many hold it already"},
    {"TYPE", "an object of another type"},
    {"NO_CAP", "there is no such domain, or this one may not command it"},
    {"REVOKED", "the right to it was taken back"},
    {"DENIED", "the right to do it is missing"},
    {"DYING", "the domain has ended, or is being destroyed"},
    {"FROZEN", "a snapshot does not change; restore it and take the domain that comes of it"},
    {"BUSY", "it is in use; try again"},
    {"NO_BASE", "it cannot be reset: it was not forked with a base"},
    {"FAMILY", "the two are of different pools"},
    {"DEVICE", "memory of a device is in the way"},
    {"FAULT", "no memory is there, or it may not be used so"},
    {"IO", "a page could not be loaded"},
    {"INVALID", "an argument is not one of its legal values"},
};

const char *cleave_status_name(unsigned status)
{
    if (status == CLEAVE_OK) {
        return "OK";
    }
    return status >= CLEAVE_ERROR_FIRST && status < CLEAVE_STATUS_END
               ? statuses[status - CLEAVE_ERROR_FIRST].name
               : "unknown";
}

const char *status_text(unsigned status)
{
    return status >= CLEAVE_ERROR_FIRST && status < CLEAVE_STATUS_END
               ? statuses[status - CLEAVE_ERROR_FIRST].text
               : "refused for a reason that this library does not know";
}

const char *cleave_reason_name(uint32_t reason)
{
    static const char *const names[CLEAVE_REASONS] = {
        [CLEAVE_RUNNING] = "running",
        [CLEAVE_EXITED] = "exited",
        [CLEAVE_HALTED] = "halted",
        [CLEAVE_TRIPLE_FAULT] = "triple-fault",
        [CLEAVE_BAD_ACCESS] = "bad-access",
        [CLEAVE_UNKNOWN_EXIT] = "unknown-exit",
        [CLEAVE_ENTRY_FAILED] = "entry-failed",
        [CLEAVE_DESTROYED] = "destroyed",
        [CLEAVE_POWERED_OFF] = "powered-off",
        [CLEAVE_REBOOTED] = "rebooted",
        [CLEAVE_SUSPENDED] = "suspended",
        [CLEAVE_GUEST_CRASHED] = "crashed",
    };
    return reason < CLEAVE_REASONS ? names[reason] : "unknown";
}

const char *cleave_state_name(uint32_t state)
{
    static const char *const names[CLEAVE_STATE_ENDED + 1] = {
        [0] = "unknown",
        [CLEAVE_STATE_RUNNING] = "running",
        [CLEAVE_STATE_PAUSED] = "paused",
        [CLEAVE_STATE_STARVED] = "starved",
        [CLEAVE_STATE_FROZEN] = "frozen",
        [CLEAVE_STATE_ENDED] = "ended",
    };
    return state <= CLEAVE_STATE_ENDED ? names[state] : "unknown";
}

const char *op_name(unsigned op)
{
    static const char *const names[CLEAVE_OPS] = {
        [CLEAVE_OP_VERSION] = "version",
        [CLEAVE_OP_CONSOLE] = "console",
        [CLEAVE_OP_EXIT] = "exit",
        [CLEAVE_OP_ERROR] = "error",
        [CLEAVE_OP_CREATE] = "create",
        [CLEAVE_OP_MAP] = "map",
        [CLEAVE_OP_UNMAP] = "unmap",
        [CLEAVE_OP_PROTECT] = "protect",
        [CLEAVE_OP_COPY] = "copy",
        [CLEAVE_OP_START] = "start",
        [CLEAVE_OP_PAUSE] = "pause",
        [CLEAVE_OP_UNPAUSE] = "unpause",
        [CLEAVE_OP_FORK] = "fork",
        [CLEAVE_OP_SNAPSHOT] = "snapshot",
        [CLEAVE_OP_RESET] = "reset",
        [CLEAVE_OP_DESTROY] = "destroy",
        [CLEAVE_OP_WAIT] = "wait",
        [CLEAVE_OP_STAT] = "stat",
        [CLEAVE_OP_AUDIT] = "audit",
        [CLEAVE_OP_LOOKUP] = "lookup",
        [CLEAVE_OP_COLLAPSE] = "collapse",
        [CLEAVE_OP_NOTIFY] = "notify",
        [CLEAVE_OP_EVENT] = "event",
        [CLEAVE_OP_VERDICT] = "verdict",
        [CLEAVE_OP_YIELD] = "yield",
        [CLEAVE_OP_LIST] = "list",
        [CLEAVE_OP_RENAME] = "rename",
        [CLEAVE_OP_GRANT] = "grant",
        [CLEAVE_OP_TERMINAL] = "terminal",
        [CLEAVE_OP_WINDOW] = "window",
        [CLEAVE_OP_POOL_CREATE] = "pool create",
        [CLEAVE_OP_POOL_LIST] = "pool list",
        [CLEAVE_OP_POOL_DELETE] = "pool delete",
        [CLEAVE_OP_CREATE_IN] = "create",
        [CLEAVE_OP_POOL_RESIZE] = "pool resize",
    };
    return op < CLEAVE_OPS && names[op] != NULL ? names[op] : "operation";
}
