/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of one core: its tables, its ports, and what is noted about the packet in hand. */
#ifndef DYSCO_DPDK_STATE_H
#define DYSCO_DPDK_STATE_H
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "scratch.h"
#include "reasons.h"
#include "routes.h"
#include "sessions.h"
#include "table.h"

enum {
	BURST = 32,
	QUEUE_ROOM = 2 * BURST,
	MAX_PAIRS = 8,
	ENTRY_NODE = 128,               /* two cache lines, one pair for the prefetcher */
	SESSIONS_AT_ONCE = 512,         /* looked at by one expiry step: some ten microseconds */
	EVENT_ROOM = 1 << 14,
	MAX_TAGS = 4096,
};
_Static_assert(NODE_VALUE + sizeof(struct entry) <= ENTRY_NODE, "an entry and its key");

/* What will leave by a port. */
struct queue {
	u16 port, waiting;
	struct rte_mbuf *mbuf[QUEUE_ROOM];
	u64 sent, lost;
};

/* An interface of this host: its wire side, and the side of the local stack.  Tables know it by the index that the
 * latter has in the kernel. */
struct pair {
	u32 ifindex;
	u8 mac[6];
	struct queue wire, host;
	u64 from_wire, from_host;
};

struct agent {
	/* the packet in hand */
	u8 *hint[2];            /* what the burst has found in the egress, ingress table */
	struct pair *in_hand;   /* where it came from */
	struct queue *out;      /* where it goes */
	u32 arriving;
	u32 pairs;
	struct table egress, ingress, reconfig, member, hop_index;
	struct pair pair[MAX_PAIRS];
	u64 counter[COUNTERS];
	struct next_hop hop[MAX_NEXT_HOPS];
	u32 hops;               /* in use, of those that the core adds */
	struct config config;
	struct sessions sessions;
	u32 each;               /* where the walk over all sessions goes on; 0: it is over */
	struct policy policy[POLICY_SLOTS];
	struct hmac_key key[MAX_DOMAINS * MAX_KEYS];
	struct middlebox_type type[MAX_TYPES];
	u64 tagged[MAX_TAGS];   /* nonces of SYNs that are inside this host, by their tags */
	struct routes routes;
	struct rte_mempool *pool;       /* of frames that do not come from a port: commands */
	struct scratch scratch;
	/* events: written by this core, read by the control thread */
	int wake;               /* an eventfd */
	u32 told, heard;
	struct event event[EVENT_ROOM];
};

INLINE void queue_flush(struct queue *q)
{
	if (!q->waiting)
		return;
	u16 sent = rte_eth_tx_burst(q->port, 0, q->mbuf, q->waiting);
	if (sent < q->waiting)
		rte_pktmbuf_free_bulk(q->mbuf + sent, q->waiting - sent);
	q->lost += (u64)(q->waiting - sent);
	q->sent += sent;
	q->waiting = 0;
}

INLINE void queue_add(struct queue *q, struct rte_mbuf *m)
{
	if (q->waiting == QUEUE_ROOM)
		queue_flush(q);
	q->mbuf[q->waiting++] = m;
}

/* The control thread is woken only for what must be answered at once; it reads the others by the way. */
static inline void agent_tell(struct agent *a, const struct event *event)
{
	u32 heard = __atomic_load_n(&a->heard, __ATOMIC_ACQUIRE);

	if (a->told - heard >= EVENT_ROOM) {
		a->counter[COUNT_EVENT_LOST]++;
		return;
	}
	a->event[a->told % EVENT_ROOM] = *event;
	__atomic_store_n(&a->told, a->told + 1, __ATOMIC_RELEASE);
	if (event_urgency(event->kind) == AT_ONCE)
		eventfd_write(a->wake, 1);
}

#endif
