/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes pools and domains as the boot configuration says. */
#ifndef KERNEL_BUILD_H
#define KERNEL_BUILD_H

#include "config.h"
#include "domain.h"

/* Makes all of it, or says on the console what is wrong with which line or object and returns
 * false. Domains start unless they are `paused`. */
bool build_all(struct mm_ctx *ctx, struct config *config);
/* Makes the control domain once more, from the same configuration and modules. There is none when
 * this is called. False: the configuration has none, or what is wrong is said. */
bool build_control(struct mm_ctx *ctx);

#endif
