/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of an agent of the host library as bytes, in one way only, and back.
 *
 * What cannot matter is left out: counters of packets and bytes; and of a time nothing is kept but whether it is now or
 * later, or long ago, as the clock stands still.  Time passes when tables grow old.
 */
#ifndef FROZEN_H
#define FROZEN_H
#include <stddef.h>

#include "port.h"

enum { FROZEN_MOST = 1 << 14 };
static const u64 FROZEN_NOW = 1000000000000;

/* Takes everything out of the agent's tables.  Returns the number of bytes at `to`, which has room for FROZEN_MOST. */
u32 freeze(struct agent *a, u8 *to);
/* Puts it back into an agent that has nothing else: no counters, no events, a random generator at its beginning, scratch
 * memory full of `rubbish`. */
void thaw(struct agent *a, const u8 *from, u32 length, u8 rubbish);
/* Everything in the tables happened long ago. */
void grow_old(struct agent *a);

#endif
