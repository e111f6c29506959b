/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One's-complement sums and their incremental update (RFC 1624).
 *
 * A change of a TCP segment is kept as two sums: `pseudo` (addresses and length, part of the pseudo header) and
 * `tcp` (everything else).  A segment whose checksum the NIC will complete needs only the first.
 */
#ifndef DYSCO_CHECKSUM_H
#define DYSCO_CHECKSUM_H
#include "types.h"

struct checksum_change {
	u64 pseudo, tcp;
};

INLINE u32 fold32(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (u32)((sum & 0xffffffff) + (sum >> 32));
}

INLINE u16 fold16(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u16)((sum & 0xffff) + (sum >> 16));
}

INLINE void sum_replace32(u64 *sum, u32 old, u32 new) { *sum += (u64)(u32)~old + new; }
INLINE void sum_replace16(u64 *sum, u16 old, u16 new) { *sum += (u64)(u16)~old + new; }

/* A checksum field after `change` has been applied to what it covers. */
INLINE u16 checksum_apply(u16 field, u64 change) { return (u16)~fold16((u64)(u16)~field + change); }

/* A 32-bit word at an odd offset contributes with its bytes rotated. */
INLINE u32 at_odd_offset(u32 word) { return (word << 8) | (word >> 24); }

#endif
