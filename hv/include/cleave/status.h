/* SPDX-License-Identifier: BSD-2-Clause */
/* The status values of every operation: shared by hypervisor, tools, guest agent and tests. */
#ifndef CLEAVE_STATUS_H
#define CLEAVE_STATUS_H

/*
 * Zero is success. Values below CLEAVE_ERROR_FIRST are not errors: the operation stopped at a point
 * from which it goes on when it is called again. Every error leaves the state as it was before the
 * call. The numbers are ABI: append, never renumber.
 */
enum cleave_status {
    CLEAVE_OK = 0,
    CLEAVE_AGAIN = 1, /* preempted: call again with the same arguments */
    CLEAVE_WAIT = 2,  /* the vcpu is queued (verdict, pager, memory): execute again once woken */

    CLEAVE_ERROR_FIRST = 16,
    CLEAVE_ALIGN = 16, /* an address or a size is not a multiple of what it must be */
    CLEAVE_RANGE,      /* an address lies past the guest's or the host's width */
    CLEAVE_WRAP,       /* start plus size wraps around */
    CLEAVE_COUNT,      /* a count or size is zero or past its limit */
    CLEAVE_ORDER,      /* not one of the three leaf orders */
    CLEAVE_RIGHTS,     /* a set of rights that no entry can have */
    CLEAVE_POLICY,     /* unknown region policy, or one that the operation does not allow */
    CLEAVE_OVERLAP,    /* two ranges overlap that must not */
    CLEAVE_EXISTS,     /* something is already there */
    CLEAVE_NOT_MAPPED, /* nothing is there */
    CLEAVE_NO_MEMORY,  /* the pool or untyped that pays has no frame of this order */
    CLEAVE_QUOTA,      /* the account would be charged past its limit */
    CLEAVE_RESERVE,    /* a reservation that cannot be met */
    CLEAVE_OVERFLOW,   /* a reference count would overflow */
    CLEAVE_TYPE,       /* a capability of another object type */
    CLEAVE_NO_CAP,     /* no capability in that slot */
    CLEAVE_REVOKED,    /* the handle names a capability that is gone */
    CLEAVE_DENIED,     /* the capability lacks a right, or a subscriber said no */
    CLEAVE_DYING,      /* the object is being destroyed */
    CLEAVE_FROZEN,     /* a snapshot is immutable */
    CLEAVE_BUSY,       /* in use: the error's value names the holder */
    CLEAVE_NO_BASE,    /* reset of a fork that was made without a base */
    CLEAVE_FAMILY,     /* two spaces that are not of one pool */
    CLEAVE_DEVICE,     /* fork refused: a device region is in the way */
    CLEAVE_FAULT,      /* the access meets a hole or lacks the right: report it to the guest */
    CLEAVE_IO,         /* the pager could not load the page */
    CLEAVE_INVALID,    /* any other argument out of its range */
    CLEAVE_STATUS_END
};

#endif
