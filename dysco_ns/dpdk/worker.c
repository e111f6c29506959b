/* SPDX-License-Identifier: Apache-2.0 */
/* Bursts of packets through the core.
 *
 * A burst goes through four stages, so that memory has time to answer: the frames are fetched, then the buckets of their
 * five-tuples, then their entries; then the core sees one after the other, with all that it needs in the cache.
 */
#include "mbuf_port.h"
#include "segment.h"
#include "steer.h"
#include "steps.h"
#include "worker.h"

enum { ENTRIES_OF_A_SESSION = 4, AT_ADDRESSES = AT_IP + 12, LANE_ROOM = 2048, SPARE_SESSIONS = 1024 };

/* ---- made ---- */

static struct agent *agent_new(struct shared *s, u32 number, u32 sessions)
{
	struct agent *a = memory_take(sizeof(*a));
	u32 tuple = sizeof(struct five_tuple);

	if (!a || sessions_make(&a->sessions, sessions) ||
	    table_make(&a->egress, tuple, sizeof(struct entry), ENTRIES_OF_A_SESSION / 2 * sessions, ENTRY_NODE) ||
	    table_make(&a->ingress, tuple, sizeof(struct entry), (ENTRIES_OF_A_SESSION - 1) * sessions, ENTRY_NODE) ||
	    table_make(&a->reconfig, sizeof(struct reconfig_key), sizeof(struct reconfig), sessions, 64) ||
	    (s->spread.cores > 1 && claims_make(&a->claims, 2 * sessions)))
		return 0;
	a->shared = s;
	a->hop = s->hop;
	a->number = number;
	pthread_mutex_init(&a->tables, 0);
	return a;
}

static int lanes_make(struct shared *s, struct agent *a)
{
	for (u32 to = 0; to < s->spread.cores; to++) {
		char name[RTE_RING_NAMESIZE];
		snprintf(name, sizeof(name), "lane%u-%u", a->number, to);
		a->to[to].in = rte_ring_create(name, LANE_ROOM, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
		if (!a->to[to].in)
			return -1;
	}
	return 0;
}

struct shared *agents_new(u32 cores, u32 sessions)
{
	struct shared *s = memory_take(sizeof(*s));
	u32 each = cores == 1 ? sessions : (u32)RTE_MIN(2ull * sessions / cores + SPARE_SESSIONS, sessions + 0ull);

	if (!s || table_make(&s->hop_index, sizeof(struct hop_key), sizeof(u32), MAX_NEXT_HOPS, 8))
		return 0;
	spread_make(&s->spread, cores);
	pthread_mutex_init(&s->routing, 0);
	for (u32 i = 0; i < RTE_MAX_ETHPORTS; i++)
		pthread_mutex_init(&s->sending[i], 0);
	s->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	routes_open(&s->routes);
	for (u32 i = 0; i < cores; i++) {
		s->agent[i] = agent_new(s, i, each);
		if (!s->agent[i] || (cores > 1 && lanes_make(s, s->agent[i])))
			return 0;
	}
	return s;
}

/* ---- a burst ---- */

/* What the core has dropped in this burst may be used again. */
static void bury(struct agent *a)
{
	table_bury(&a->egress);
	table_bury(&a->ingress);
	table_bury(&a->reconfig);
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
	if (likely(verdict == VERDICT_SENT || verdict == VERDICT_PASS))
		queue_add(a->out, p);
	else if (verdict == VERDICT_DROP)
		rte_pktmbuf_free(p);
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

/* Stage 4. */
INLINE void pass(struct agent *a, struct pair *pair, struct packet **frames, u32 n, u32 arriving, u8 **hint)
{
	here = a;
	a->in_hand = pair;
	a->arriving = arriving;
	a->hint[!arriving] = 0;
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

INLINE void burst(struct agent *a, struct pair *pair, struct packet **frames, u32 n, u32 arriving)
{
	u8 *hint[BURST];

	look_ahead(arriving ? &a->ingress : &a->egress, frames, n, hint);
	pass(a, pair, frames, n, arriving, hint);
}

/* ---- several cores ---- */

/* Whether a frame has an entry at this core: where it was expected, or further on. */
INLINE int has_entry(const struct table *t, struct packet *p, u8 **hint)
{
	u64 low, high;

	frame_key(p, &low, &high);
	if (likely(*hint && same_key(*hint, low, high)))
		return 1;
	*hint = table_search(t, table_hash(t, low, high), low, high, ENTRY_NODE);
	return *hint != 0;
}

/* A burst in which some frames may be for other cores. */
static void burst_known(struct agent *a, struct pair *pair, struct packet **frames, u32 n, u32 arriving, const struct way *fresh)
{
	const struct table *t = arriving ? &a->ingress : &a->egress;
	u8 *hint[BURST];
	u32 kept = 0;

	look_ahead(t, frames, n, hint);
	for (u32 i = 0; i < n; i++) {
		struct packet *p = frames[i];
		u8 *found = hint[i];
		if (!has_entry(t, p, &found) && !elsewhere(a, p, arriving, fresh ? *fresh : *way_of(p)))
			continue;
		hint[kept] = found;
		frames[kept++] = p;
	}
	pass(a, pair, frames, kept, arriving, hint);
}

/* Frames of this core's queues: those that arrive here by their hash, and those that a port could not spread. */
static void spread_burst(struct agent *a, struct pair *pair, struct packet **frames, u32 n, u32 arriving)
{
	struct way way = { (u8)((u32)(pair - a->pair) | (arriving ? WAY_ARRIVING : 0)), STAGE_KNOWN, 0, MOST_HOPS };
	struct five_tuple t;
	u32 kept = 0;

	for (u32 i = 0; i < n; i++)
		rte_prefetch0(port_data(frames[i]));
	for (u32 i = 0; i < n; i++) {
		u32 to = steering_tuple(frames[i], arriving, &t) ? core_of(&a->shared->spread, &t) : a->number;
		if (to == a->number)
			frames[kept++] = frames[i];
		else
			hand_on(a, to, frames[i], way);
	}
	burst_known(a, pair, frames, kept, arriving, &way);
}

/* Frames that have come to this core by the same way. */
static void lane_burst(struct agent *a, struct packet **frames, u32 n, struct way way)
{
	struct pair *pair = &a->pair[way.pair % MAX_PAIRS];
	u32 arriving = (way.pair & WAY_ARRIVING) != 0, kept = 0;

	if (way.stage == STAGE_KNOWN) {
		burst_known(a, pair, frames, n, arriving, 0);
		return;
	}
	for (u32 i = 0; i < n; i++) {
		way = *way_of(frames[i]);
		if (way.stage == STAGE_HERE || (way.stage == STAGE_ASK ? ask(a, frames[i], way) : come_home(a, frames[i], way)))
			frames[kept++] = frames[i];
	}
	burst(a, pair, frames, kept, arriving);
}

u32 agent_lanes(struct agent *a)
{
	struct packet *frames[BURST];
	u32 all = 0;

	for (u32 from = 0; from < a->shared->spread.cores; from++) {
		u32 n = rte_ring_sc_dequeue_burst(a->shared->agent[from]->to[a->number].in, (void **)frames, BURST, 0), first = 0;
		for (u32 i = 1; i <= n; i++) {
			struct way way = *way_of(frames[first]), *next = i < n ? way_of(frames[i]) : 0;
			if (next && next->pair == way.pair && next->stage == way.stage)
				continue;
			lane_burst(a, frames + first, i - first, way);
			first = i;
		}
		all += n;
	}
	return all;
}

/* ---- for the loop ---- */

void agent_frames(struct agent *a, struct pair *pair, struct rte_mbuf **frames, u32 n, u32 arriving)
{
	*(arriving ? &pair->from_wire : &pair->from_host) += n;
	if (a->shared->spread.cores > 1)
		spread_burst(a, pair, frames, n, arriving);
	else if (arriving)
		burst(a, pair, frames, n, 1);
	else
		burst(a, pair, frames, n, 0);
}

void agent_flush(struct agent *a)
{
	for (u32 i = 0; i < a->pairs; i++) {
		queue_flush(&a->pair[i].wire);
		queue_flush(&a->pair[i].host);
	}
	for (u32 i = 0; a->to[0].in && i < a->shared->spread.cores; i++)
		lane_flush(&a->to[i]);
}

static u32 look_at(struct agent *a, struct pair *pair, u16 port, u16 queue, u32 arriving)
{
	struct rte_mbuf *frames[BURST];
	u32 n = queue == NOT_POLLED ? 0 : rte_eth_rx_burst(port, queue, frames, BURST);

	if (n)
		agent_frames(a, pair, frames, n, arriving);
	return n;
}

u32 agent_turn(struct agent *a)
{
	u64 handed = a->handed;
	u32 all = 0;

	for (u32 i = 0; i < a->pairs; i++) {
		struct pair *pair = &a->pair[i];
		all += look_at(a, pair, pair->host.port, pair->poll_host, 0);
		all += look_at(a, pair, pair->wire.port, pair->poll_wire, 1);
	}
	if (a->to[0].in)
		all += agent_lanes(a);
	agent_flush(a);
	return all + (u32)(a->handed - handed);
}

/* ---- segments that have waited ---- */

/* Whose segment it is that has waited. */
static u64 parked_nonce(struct agent *a, struct packet *p)
{
	struct five_tuple t;
	struct entry *e = steering_tuple(p, 0, &t) ? table_find(&a->egress, &t) : 0;

	return e ? e->nonce : 0;
}

static u32 release_at(struct agent *a, u64 nonce)
{
	struct packet *p;
	u32 kept = 0, released = 0;

	a->releasing = 1;
	for (u32 i = 0; i < a->parked; i++) {
		p = a->parking[i];
		u64 owner = parked_nonce(a, p);
		if (owner == nonce) {
			burst(a, &a->pair[way_of(p)->pair % MAX_PAIRS], &p, 1, 0);
			released++;
		} else if (has_session(a, owner)) {
			a->parking[kept++] = p;
		} else {
			rte_pktmbuf_free(p);
		}
	}
	a->parked = kept;
	a->releasing = 0;
	agent_flush(a);
	return released;
}

u32 agents_release(struct shared *s, u64 nonce)
{
	u32 released = 0;

	for (u32 i = 0; i < s->spread.cores; i++)
		released += release_at(s->agent[i], nonce);
	return released;
}
