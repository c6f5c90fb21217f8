/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the pages are that a forked Linux guest has to itself: Linux's own books (/proc/iomem,
 * kpageflags, vmallocinfo, kallsyms, and its page tables by kcore) tell what each holds.
 */
#ifndef CAUSES_H
#define CAUSES_H

/*
 * Notes which pages of 4 KiB this domain has to itself and may write at this moment (LOOKUP). It
 * writes a few pages of its own meanwhile.
 */
void causes_note(void);

/* Prints what the noted pages are: lines "causes.NAME COUNT". Ends the program when Linux's books
 * cannot be read, which takes root. */
void causes_print(void);

#endif
