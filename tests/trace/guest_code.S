/* SPDX-License-Identifier: BSD-2-Clause */
/* What runs in the guest: 64-bit code that is copied there. */
    .section .rodata
    .globl trace_guest, trace_guest_end
trace_guest:                    /* copies RCX bytes from RSI to RDI */
    rep movsb
    hlt
trace_guest_end:

    .section .note.GNU-stack, "", @progbits
