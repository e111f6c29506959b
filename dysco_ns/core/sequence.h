/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Comparison of sequence numbers and timestamps, modulo 2^32 (RFC 9293 3.4, RFC 7323 5.2). */
#ifndef DYSCO_SEQUENCE_H
#define DYSCO_SEQUENCE_H
#include "types.h"

INLINE int seq_before(u32 a, u32 b) { return (s32)(a - b) < 0; }
INLINE int seq_after(u32 a, u32 b) { return (s32)(b - a) < 0; }
INLINE u32 seq_max(u32 a, u32 b) { return seq_after(a, b) ? a : b; }
INLINE u32 seq_min(u32 a, u32 b) { return seq_before(a, b) ? a : b; }

#endif
