/* SPDX-License-Identifier: Apache-2.0 */
/* The core's port layer (core/port.h) on DPDK.  `here` is the agent of this core. */
#ifndef DYSCO_DPDK_MBUF_PORT_H
#define DYSCO_DPDK_MBUF_PORT_H
#include <time.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_random.h>

#define packet rte_mbuf
#include "scratch.h"
#include "reasons.h"
#include "routes.h"
#include "sequence.h"
#include "state.h"

static __thread struct agent *here;

enum { VERDICT_PARKED = VERDICT_SENT + 1 }; /* beyond enum verdict: the frame stays here */

/* What a core is told of a frame by the one that hands it on, and where a parked one came from. */
struct way {
	u8 pair, stage, home, left;
};
INLINE struct way *way_of(struct rte_mbuf *m) { return (struct way *)&m->hash.usr; }

/* ---- packet ---- */

INLINE void *port_data(struct packet *p) { return rte_pktmbuf_mtod(p, void *); }
INLINE void *port_data_end(struct packet *p) { return rte_pktmbuf_mtod(p, u8 *) + p->data_len; }
INLINE u32 port_length(struct packet *p) { return p->data_len; }
INLINE int port_pull(struct packet *p, u32 n) { return p->data_len < n ? -1 : 0; }
INLINE u32 port_gso_size(struct packet *p) { return (void)p, 0u; }
#include "linear.h"

INLINE int port_resize(struct packet *p, u32 n)
{
	u32 have = p->data_len;

	if (n <= have)
		return rte_pktmbuf_trim(p, (u16)(have - n));
	void *tail = rte_pktmbuf_append(p, (u16)(n - have));
	if (!tail)
		return -1;
	memset(tail, 0, n - have);
	return 0;
}

/* ---- tables ---- */

/* What the burst has found for the packet in hand, if it is still what it was; else a search. */
INLINE void *entry_find(struct table *t, u8 *hint, const struct five_tuple *key)
{
	/* from registers: through memory it would be four stores and a wider load, which waits for them (measured: 17 ns) */
	u64 low = (u64)key->dst << 32 | key->src, high = (u32)key->dport << 16 | key->sport;

	if (hint && same_key(hint, low, high))
		return hint + NODE_VALUE;
	u8 *node = table_search(t, table_hash(t, low, high), low, high, ENTRY_NODE);
	return node ? node + NODE_VALUE : 0;
}
INLINE struct entry *port_egress(const struct five_tuple *key) { return entry_find(&here->egress, here->hint[0], key); }
INLINE struct entry *port_ingress(const struct five_tuple *key) { return entry_find(&here->ingress, here->hint[1], key); }

/* Whose claims must know that a five-tuple is this core's, 0: its frames arrive here anyway. */
INLINE struct claims *claims_for(const struct five_tuple *key)
{
	const struct spread *s = &here->shared->spread;
	u32 core = s->cores > 1 ? core_of(s, key) : here->number;

	return core == here->number ? 0 : &here->shared->agent[core]->claims;
}
static int entry_put(struct table *t, u32 arriving, const struct five_tuple *key, const struct entry *e)
{
	struct claims *claims = claims_for(key);

	if (claims && claim_put(claims, arriving, key, here->number))
		return -1;
	if (!table_put(t, key, e))
		return 0;
	if (claims)
		claim_drop(claims, arriving, key, here->number);
	return -1;
}
static int entry_drop(struct table *t, u32 arriving, const struct five_tuple *key)
{
	struct claims *claims = claims_for(key);

	if (claims)
		claim_drop(claims, arriving, key, here->number);
	return table_drop(t, key);
}
INLINE int port_put_egress(const struct five_tuple *key, const struct entry *e) { return entry_put(&here->egress, 0, key, e); }
INLINE int port_put_ingress(const struct five_tuple *key, const struct entry *e) { return entry_put(&here->ingress, 1, key, e); }
INLINE int port_drop_egress(const struct five_tuple *key) { return entry_drop(&here->egress, 0, key); }
INLINE int port_drop_ingress(const struct five_tuple *key) { return entry_drop(&here->ingress, 1, key); }
INLINE struct session *port_session(const u64 *nonce) { return sessions_find(&here->sessions, *nonce); }
INLINE int port_put_session(const u64 *nonce, const struct session *s) { return sessions_put(&here->sessions, *nonce, s); }
INLINE int port_drop_session(const u64 *nonce) { return sessions_drop(&here->sessions, *nonce); }
INLINE struct reconfig *port_reconfig(const struct reconfig_key *key) { return table_find(&here->reconfig, key); }
INLINE int port_put_reconfig(const struct reconfig_key *key, const struct reconfig *r)
{
	return table_put(&here->reconfig, key, r);
}
INLINE int port_drop_reconfig(const struct reconfig_key *key) { return table_drop(&here->reconfig, key); }
INLINE u64 *port_member(const be32 *address) { return member_find(&here->shared->members, *address, 0); }
INLINE void port_put_member(const be32 *address, const u64 *sessions)
{
	(void)sessions; /* a place begins with none, and another core may have taken it */
	member_find(&here->shared->members, *address, 1);
}
INLINE void port_add(u64 *at, u64 n) { __atomic_fetch_add(at, n, __ATOMIC_RELAXED); }

INLINE struct config *port_config(void) { return &here->shared->config; }
INLINE struct scratch *port_scratch(void) { return &here->scratch; }
INLINE struct policy *port_policy(u32 i) { return i < POLICY_SLOTS ? &here->shared->policy[i] : 0; }
INLINE struct middlebox_type *port_type(u32 i) { return i < MAX_TYPES ? &here->shared->type[i] : 0; }
INLINE struct hmac_key *port_key(u32 i) { return i < MAX_DOMAINS * MAX_KEYS ? &here->shared->key[i] : 0; }
INLINE struct next_hop *port_next_hop_at(u32 i) { return i < MAX_NEXT_HOPS ? &here->hop[i] : 0; }

/* A mark does not survive the way into the kernel and back: tags are options (core/tag.h).  A later SYN may take the slot.
 * The number ends with that of the core that has the session: a NAT may send the SYN to another. */
INLINE u32 tag_number(u64 nonce) { return ((u32)(nonce >> 8) & ~(MAX_CORES - 1u)) | here->number; }
INLINE u64 *tag_place(u32 number) { return &here->tagged[number / MAX_CORES % MAX_TAGS]; }
INLINE u64 port_tagged(u32 number)
{
	u64 nonce = *tag_place(number);

	return nonce && tag_number(nonce) == number ? nonce : 0;
}
INLINE u64 port_tag(struct packet *p) { return (void)p, 0ull; }
INLINE u32 port_put_tag(struct packet *p, const u64 *nonce)
{
	u32 number = tag_number(*nonce);

	(void)p;
	*tag_place(number) = *nonce;
	return number;
}

INLINE int port_swap(u64 *at, u64 from, u64 to)
{
	int was = *at == from; /* one core */

	*at = was ? to : *at;
	return was;
}

/* A part of the table at a time: packets wait for it.  The control thread runs the command again until all is done. */
INLINE void port_each_session(long (*step)(void *, u64 *, struct session *, void *))
{
	struct sessions *t = &here->sessions;

	for (u32 i = 0; i < SESSIONS_AT_ONCE; i++) {
		u8 *node = table_next(&t->table, &here->each);
		if (!node) {
			here->each = 0;
			return;
		}
		u64 nonce;
		memcpy(&nonce, node, sizeof(nonce));
		struct session *s = sessions_find(t, nonce);
		long enough = s ? step(0, &nonce, s, 0) : 0;
		sessions_close(t);
		if (enough)
			return;
	}
}

/* ---- world ---- */

INLINE void port_loop(u32 turns, long (*step)(u32 turn, void *context), void *context)
{
	for (u32 i = 0; i < turns && !step(i, context); i++)
		;
}
INLINE u64 port_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}
INLINE u32 port_random(void) { return (u32)rte_rand(); }
INLINE void port_lock(struct reconfig *r) { (void)r; } /* one core has the session and its commands */
INLINE void port_unlock(struct reconfig *r) { (void)r; }
INLINE void port_count(u32 counter) { here->counter[counter]++; }
INLINE void port_event(const struct event *event) { agent_tell(here, event); }

INLINE struct pair *pair_of(u32 ifindex)
{
	if (likely(here->in_hand->ifindex == ifindex))
		return here->in_hand;
	for (u32 i = 0; i < here->pairs; i++)
		if (here->pair[i].ifindex == ifindex)
			return &here->pair[i];
	return 0;
}

/* Other cores may send by it at this moment. */
INLINE void hop_write(u32 index, const struct next_hop *hop)
{
	struct next_hop unresolved = *hop;

	unresolved.resolved = 0;
	here->hop[index] = unresolved;
	__atomic_store_n(&here->hop[index].resolved, hop->resolved, __ATOMIC_RELEASE);
}

/* For the neighbours beyond those that the table holds: one next hop an interface, unresolved. */
INLINE u32 shared_hop(struct next_hop *hop)
{
	u32 index = SHARED_NEXT_HOPS + (u32)(pair_of(hop->ifindex) - here->pair);

	hop->address = 0;
	hop->resolved = 0;
	hop_write(index, hop);
	return index;
}

static u32 route_find_hop(be32 address, be32 from)
{
	struct shared *s = here->shared;
	struct hop_key key = { address, from };
	u32 *known = table_find(&s->hop_index, &key);
	struct next_hop fresh = {};

	known = known && *known < MAX_NEXT_HOPS ? known : 0; /* the daemon writes there, too */
	if (known && here->hop[*known].resolved)
		return *known;
	if (routes_ask(&s->routes, address, from, &fresh) || (known && !fresh.resolved))
		return known ? *known : 0;
	struct pair *pair = pair_of(fresh.ifindex);
	if (!pair)
		return 0;
	memcpy(fresh.source, pair->mac, 6);
	u32 index = known ? *known : s->hops + 1;
	if (index >= SHARED_NEXT_HOPS)
		return shared_hop(&fresh);
	if (!known && table_put(&s->hop_index, &key, &index))
		return 0;
	s->hops = known ? s->hops : index;
	hop_write(index, &fresh);
	return index;
}

/* The index of the next hop towards an address: cached, and looked up once.  One that the kernel does not know yet stays
 * unresolved until the daemon finds it (hops.py). */
NOINLINE u32 port_route(struct packet *p, be32 address, be32 from)
{
	(void)p;
	if (here->shared->spread.cores == 1)
		return route_find_hop(address, from);
	pthread_mutex_lock(&here->shared->routing);
	u32 index = route_find_hop(address, from);
	pthread_mutex_unlock(&here->shared->routing);
	return index;
}

/* Moves a new subsession's source port on to one by which what comes back arrives at this core. */
INLINE void port_near(const struct config *config, struct five_tuple *to)
{
	enum { TRIES = 256 };
	const struct spread *s = &here->shared->spread;
	u32 at = be16_of(to->sport) - config->first_port;

	for (u32 i = 0; s->cores > 1 && i < TRIES && core_of(s, to) != here->number; i++) {
		at = (at + 1) % config->ports;
		to->sport = be16_of(config->first_port + at);
	}
}

/* ---- out ---- */

enum { HOP_ADDRESSES = __builtin_offsetof(struct next_hop, destination) };
_Static_assert(__builtin_offsetof(struct next_hop, source) == HOP_ADDRESSES + 6, "in the order of the Ethernet header");

/* Addresses the frame to a next hop.  Without its address the frame keeps the one that the local stack has chosen, or
 * goes back to where it came from. */
INLINE void address_frame(struct packet *p, const struct next_hop *hop)
{
	struct wire_ethernet *ethernet = port_data(p);

	if (likely(hop->resolved)) {
		memcpy(ethernet, (const u8 *)hop + HOP_ADDRESSES, 12); /* both at once */
		return;
	}
	port_count(COUNT_NEXT_HOP_KERNEL);
	if (here->arriving) {
		memcpy(ethernet->destination, ethernet->source, 6);
		memcpy(ethernet->source, here->in_hand->mac, 6);
	}
}

/* The packet in hand will leave by the wire of its next hop. */
INLINE int port_redirect(struct packet *p, u32 index)
{
	struct next_hop *hop = port_next_hop_at(index);
	struct pair *out = hop && index ? pair_of(hop->ifindex) : 0;

	if (!out)
		return VERDICT_DROP;
	address_frame(p, hop);
	here->out = &out->wire;
	return VERDICT_SENT;
}

/* From egress.  Index 0: whatever the local stack has chosen is right. */
INLINE int port_leave(struct packet *p, u32 index) { return index ? port_redirect(p, index) : VERDICT_PASS; }

static struct packet *copy_of(struct packet *p)
{
	struct packet *copy = rte_pktmbuf_copy(p, p->pool, 0, UINT32_MAX);

	if (!copy)
		port_count(COUNT_EMIT_FAILED);
	return copy;
}

static void copy_leaves(struct packet *copy, u32 index)
{
	struct queue *before = here->out;

	here->out = &here->in_hand->wire;
	if (!index || port_redirect(copy, index) == VERDICT_SENT) {
		queue_add(here->out, copy);
	} else {
		port_count(COUNT_EMIT_FAILED);
		rte_pktmbuf_free(copy);
	}
	here->out = before;
}
static void port_send_copy(struct packet *p, u32 index)
{
	struct packet *copy = copy_of(p);

	if (copy)
		copy_leaves(copy, index);
}

/* It waits here, as the stack has written it, until the daemon says that its session may go on. */
INLINE int port_park(struct packet *p)
{
	if (here->parked >= RTE_MIN(here->shared->config.parking, (u32)MOST_PARKED)) {
		port_count(COUNT_DROP_PARKING_FULL); /* TCP sends it again */
		return VERDICT_DROP;
	}
	port_count(COUNT_PARKED);
	way_of(p)->pair = (u8)(here->in_hand - here->pair);
	here->parking[here->parked++] = p;
	return VERDICT_PARKED;
}
INLINE int port_was_parked(struct packet *p) { return (void)p, (int)here->releasing; }

/* To the local stack, as if it had arrived: the stack sent it, so its addresses are swapped. */
INLINE int port_deliver(struct packet *p)
{
	struct wire_ethernet *ethernet = port_data(p);
	u8 swap[6];

	memcpy(swap, ethernet->destination, 6);
	memcpy(ethernet->destination, ethernet->source, 6);
	memcpy(ethernet->source, swap, 6);
	here->out = &here->in_hand->host;
	return VERDICT_SENT;
}
static void port_deliver_copy(struct packet *p, u32 ifindex)
{
	struct pair *pair = pair_of(ifindex);
	struct packet *copy = pair ? copy_of(p) : 0;

	if (copy)
		queue_add(&pair->host, copy);
}

/* A piece of the packet in hand leaves under the header of the emission in scratch. */
static void port_emit(struct packet *p)
{
	struct emission *m = &here->scratch.emission;
	struct packet *piece = copy_of(p);

	if (!piece)
		return;
	u32 most = AT_TCP + m->header + m->from + m->length;
	if (port_length(piece) < most && port_resize(piece, most)) {
		port_count(COUNT_EMIT_FAILED);
		rte_pktmbuf_free(piece);
		return;
	}
	port_resize(piece, piece_shape(piece, m));
	checksum_anew(piece);
	copy_leaves(piece, m->next_hop);
	port_count(COUNT_EMITTED);
}

/* The first `head` bytes leave by the emission; the rest stays in hand. */
static int port_split(struct packet *p, u32 head)
{
	struct scratch *x = &here->scratch;
	struct emission *m = &x->emission;
	u32 payload = m->payload;
	u8 *at = (u8 *)port_data(p) + AT_TCP + m->header;

	if (!head || head >= payload || AT_TCP + m->header + payload > port_length(p))
		return -1;
	m->length = head;
	port_emit(p);
	memmove(at, at + head, payload - head);
	port_resize(p, AT_TCP + m->header + payload - head);
	x->segment.payload = payload;
	x->segment.new_payload = payload - head;
	return 0;
}
static int port_split_finish(struct packet *p)
{
	checksum_anew(p);
	return 0;
}

#endif
