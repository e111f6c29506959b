/* SPDX-License-Identifier: Apache-2.0 */
/* Live sessions of each middlebox that a type may choose, counted by all cores.  Addresses come and stay. */
#ifndef DYSCO_DPDK_MEMBERS_H
#define DYSCO_DPDK_MEMBERS_H
#include "types.h"

enum { MEMBER_PLACES = 2 * MAX_TYPES * MAX_MEMBERS };

struct member {
	be32 address;           /* 0: free place */
	u32 spare;
	u64 sessions;
};

struct members {
	struct member place[MEMBER_PLACES];
};

/* The member's place, or a free one that becomes its own with `take`.  0: none. */
static u64 *member_find(struct members *m, be32 address, int take)
{
	u32 at = (address * 2654435761u) % MEMBER_PLACES; /* Knuth's multiplicative hash */

	for (u32 i = 0; i < MEMBER_PLACES; i++, at = (at + 1) % MEMBER_PLACES) {
		struct member *place = &m->place[at];
		be32 there = __atomic_load_n(&place->address, __ATOMIC_ACQUIRE);
		if (!there && take && __atomic_compare_exchange_n(&place->address, &there, address, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return &place->sessions;
		if (there == address)
			return &place->sessions;
		if (!there)
			return 0;
	}
	return 0;
}

#endif
