/* SPDX-License-Identifier: BSD-2-Clause */
/* In the place of tests/unit/test.h: no tests here, and the core's calls as they are. */
#ifndef TEST_H
#define TEST_H

#include "random.h"

#endif
