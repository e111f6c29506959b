/* SPDX-License-Identifier: Apache-2.0 */
/* Bursts of packets through the core.
 *
 * A burst goes through four stages, so that memory has time to answer: the frames are fetched, then the buckets of their
 * five-tuples, then their entries; then the core sees one after the other, with all that it needs in the cache.
 */
#include "mbuf_port.h"
#include "segment.h"
#include "steps.h"
#include "worker.h"

enum { ENTRIES_OF_A_SESSION = 4, AT_ADDRESSES = AT_IP + 12 };

struct agent *agent_new(u32 sessions)
{
	struct agent *a = memory_take(sizeof(*a));
	u32 tuple = sizeof(struct five_tuple), members = MAX_TYPES * MAX_MEMBERS;

	if (!a || sessions_make(&a->sessions, sessions) ||
	    table_make(&a->egress, tuple, sizeof(struct entry), ENTRIES_OF_A_SESSION / 2 * sessions, ENTRY_NODE) ||
	    table_make(&a->ingress, tuple, sizeof(struct entry), (ENTRIES_OF_A_SESSION - 1) * sessions, ENTRY_NODE) ||
	    table_make(&a->reconfig, sizeof(struct reconfig_key), sizeof(struct reconfig), sessions, 64) ||
	    table_make(&a->member, sizeof(be32), sizeof(u64), members, 8) ||
	    table_make(&a->hop_index, sizeof(struct hop_key), sizeof(u32), MAX_NEXT_HOPS, 8))
		return 0;
	a->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	routes_open(&a->routes);
	return a;
}

/* What the core has dropped in this burst may be used again. */
static void bury(struct agent *a)
{
	table_bury(&a->egress);
	table_bury(&a->ingress);
	table_bury(&a->reconfig);
	table_bury(&a->member);
}

/* Everything beyond the fast programs; sessions that it opens are packed again. */
static __attribute__((noinline)) int slow_steps(struct agent *a, struct packet *p, int verdict)
{
	verdict = steps(p, verdict);
	sessions_close(&a->sessions);
	return verdict;
}

INLINE void dispose(struct agent *a, struct packet *p, int verdict)
{
	if (unlikely(verdict == VERDICT_DROP))
		rte_pktmbuf_free(p);
	else
		queue_add(a->out, p);
}

/* Where the five-tuple of a TCP segment lies; of other frames it is found to be nobody's. */
INLINE void frame_key(struct packet *p, u64 *low, u64 *high)
{
	const u8 *at = (const u8 *)port_data(p) + AT_ADDRESSES;

	*high = 0;
	memcpy(low, at, 8);
	memcpy(high, at + 8, 4);
}

/* Stages 1 to 3: `hint` gets for each frame the node that it will need, if it is where it is expected. */
INLINE void look_ahead(const struct table *t, struct packet **frames, u32 n, u8 **hint)
{
	u64 hash[BURST], low, high;

	for (u32 i = 0; i < n; i++)
		rte_prefetch0(port_data(frames[i]));
	for (u32 i = 0; i < n; i++) {
		frame_key(frames[i], &low, &high);
		hash[i] = table_hash(t, low, high);
		rte_prefetch0(&t->bucket[table_home(t, hash[i])]);
	}
	for (u32 i = 0; i < n; i++) {
		hint[i] = table_guess(t, hash[i], ENTRY_NODE);
		if (hint[i]) {
			rte_prefetch0(hint[i]);
			rte_prefetch0(hint[i] + 64);
		}
	}
}

INLINE void burst(struct agent *a, struct pair *pair, struct packet **frames, u32 n, u32 arriving)
{
	u8 *hint[BURST];

	here = a;
	a->in_hand = pair;
	a->arriving = arriving;
	a->hint[!arriving] = 0;
	look_ahead(arriving ? &a->ingress : &a->egress, frames, n, hint);
	for (u32 i = 0; i < n; i++) {
		struct packet *p = frames[i];
		a->hint[arriving] = hint[i];
		a->out = arriving ? &pair->host : &pair->wire;
		if (unlikely(p->nb_segs > 1) && rte_pktmbuf_linearize(p)) {
			dispose(a, p, VERDICT_DROP);
			continue;
		}
		int verdict = arriving ? ingress(p) : egress(p);
		if (unlikely(verdict > VERDICT_SENT))
			verdict = slow_steps(a, p, verdict);
		dispose(a, p, verdict);
	}
	bury(a);
}

void agent_egress(struct agent *a, struct pair *pair, struct rte_mbuf **frames, u32 n)
{
	pair->from_host += n;
	burst(a, pair, frames, n, 0);
}

void agent_ingress(struct agent *a, struct pair *pair, struct rte_mbuf **frames, u32 n)
{
	pair->from_wire += n;
	burst(a, pair, frames, n, 1);
}

void agent_flush(struct agent *a)
{
	for (u32 i = 0; i < a->pairs; i++) {
		queue_flush(&a->pair[i].wire);
		queue_flush(&a->pair[i].host);
	}
}

u32 agent_command(struct agent *a, const void *frame, u32 n, int *more)
{
	struct packet *p = rte_pktmbuf_alloc(a->pool);
	void *data = p ? rte_pktmbuf_append(p, (u16)n) : 0;

	*more = 0;
	if (!data) {
		rte_pktmbuf_free(p);
		return REFUSED_NO_ROOM;
	}
	memcpy(data, frame, n);
	here = a;
	a->in_hand = &a->pair[0];
	a->arriving = 0;
	a->hint[0] = a->hint[1] = 0;
	u32 refusal = command_run(p);
	sessions_close(&a->sessions);
	bury(a);
	agent_flush(a);
	rte_pktmbuf_free(p);
	*more = a->scratch.command.kind == COMMAND_EXPIRE && a->each;
	return refusal;
}
