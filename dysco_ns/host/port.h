/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The core's port layer (core/port.h) in one process.  `here` is the agent whose pass it is. */
#ifndef DYSCO_HOST_PORT_H
#define DYSCO_HOST_PORT_H
#include "agent.h"
#include "scratch.h"
#include "sequence.h"
#include "table.h"

enum { HOST_HOPS = 64, HOST_SESSIONS = 4096 };

struct agent {
	struct table egress, ingress, session, reconfig, member;
	struct node *graveyard;
	struct config config;
	struct policy policy[POLICY_SLOTS];
	struct hmac_key key[MAX_DOMAINS * MAX_KEYS];
	struct middlebox_type type[MAX_TYPES];
	struct next_hop hop[HOST_HOPS];
	u32 hops;
	u64 counter[COUNTERS];
	struct scratch scratch;
	u64 now, random;
	struct packet *outbox[OUTBOX];
	u32 sent, taken;
	struct event event[AGENT_EVENTS];
	u32 told, heard;
	int from_parking;       /* the packet in hand has waited */
};

static _Thread_local struct agent *here;

/* ---- packet ---- */

INLINE void *port_data(struct packet *p) { return p->data; }
INLINE void *port_data_end(struct packet *p) { return p->data + p->length; }
INLINE u32 port_length(struct packet *p) { return p->length; }
INLINE int port_pull(struct packet *p, u32 n) { return p->length < n ? -1 : 0; }
INLINE u32 port_gso_size(struct packet *p) { return p->gso_size; }
#include "linear.h"

INLINE int port_resize(struct packet *p, u32 n)
{
	if (n > PACKET_BYTES)
		return -1;
	if (n > p->length)
		memset(p->data + p->length, 0, n - p->length);
	p->length = n;
	return 0;
}
/* ---- tables ---- */

#define HOST_TABLE(name, key_type, value_type)                                                               \
	INLINE value_type *port_##name(const key_type *key) { return table_find(&here->name, key); }         \
	INLINE int port_put_##name(const key_type *key, const value_type *v) { return table_put(&here->name, key, v); } \
	INLINE int port_drop_##name(const key_type *key) { return table_drop(&here->name, key, &here->graveyard); }
HOST_TABLE(egress, struct five_tuple, struct entry)
HOST_TABLE(ingress, struct five_tuple, struct entry)
HOST_TABLE(session, u64, struct session)
HOST_TABLE(reconfig, struct reconfig_key, struct reconfig)
HOST_TABLE(member, be32, u64)
INLINE void port_add(u64 *at, u64 n) { *at += n; }

INLINE struct config *port_config(void) { return &here->config; }
INLINE struct scratch *port_scratch(void) { return &here->scratch; }
INLINE struct policy *port_policy(u32 i) { return i < POLICY_SLOTS ? &here->policy[i] : 0; }
INLINE struct middlebox_type *port_type(u32 i) { return i < MAX_TYPES ? &here->type[i] : 0; }
INLINE struct hmac_key *port_key(u32 i) { return i < MAX_DOMAINS * MAX_KEYS ? &here->key[i] : 0; }
INLINE struct next_hop *port_next_hop_at(u32 i) { return i < HOST_HOPS ? &here->hop[i] : 0; }
INLINE u64 port_tag(struct packet *p)
{
	u64 tag = p->tag;
	p->tag = 0;
	return tag;
}
/* Nothing simulated takes packets out of the kernel: tags need no numbers here. */
INLINE u64 port_tagged(u32 number) { return 0 * number; }
INLINE u32 port_put_tag(struct packet *p, const u64 *nonce)
{
	p->tag = *nonce;
	return 0;
}
INLINE int port_swap(u64 *at, u64 from, u64 to)
{
	int was = *at == from; /* one thread */

	*at = was ? to : *at;
	return was;
}

INLINE void port_each_session(long (*step)(void *, u64 *, struct session *, void *))
{
	for (u32 i = 0; i < BUCKETS; i++)
		for (struct node *n = here->session.bucket[i], *next; n; n = next) {
			next = n->next;
			if (step(0, (u64 *)n->key, (struct session *)n->value, 0))
				return;
		}
}

/* ---- world ---- */

INLINE void port_loop(u32 turns, long (*step)(u32 turn, void *context), void *context)
{
	for (u32 i = 0; i < turns && !step(i, context); i++)
		;
}
INLINE u64 port_now(void) { return here->now; }
INLINE u32 port_random(void)
{
	here->random = here->random * 6364136223846793005u + 1442695040888963407u;
	return (u32)(here->random >> 33) ^ (u32)here->random << 13;
}
INLINE void port_lock(struct reconfig *r) { r->lock = 1; }
INLINE void port_unlock(struct reconfig *r) { r->lock = 0; }
INLINE void port_count(u32 counter) { here->counter[counter]++; }
INLINE void port_event(const struct event *event)
{
	if (here->told - here->heard < AGENT_EVENTS)
		here->event[here->told++ % AGENT_EVENTS] = *event;
	else
		port_count(COUNT_EVENT_LOST);
}
/* Every address can be reached. */
INLINE u32 port_route(struct packet *p, be32 address, be32 from)
{
	(void)p;
	for (u32 i = 1; i <= here->hops; i++)
		if (here->hop[i].address == address && (!from || here->hop[i].from == from))
			return i;
	if (here->hops + 1 >= HOST_HOPS)
		return 0;
	here->hop[++here->hops] =
		(struct next_hop){ .address = address, .ifindex = 1, .resolved = 1, .from = from ? from : here->config.interfaces[0].address };
	return here->hops;
}

/* ---- out ---- */

static struct packet *host_copy(const struct packet *p, enum way way)
{
	struct packet *copy = here->sent < OUTBOX ? malloc(sizeof(*copy)) : 0;

	if (!copy) {
		port_count(COUNT_EMIT_FAILED);
		return 0;
	}
	memcpy(copy, p, offsetof(struct packet, data) + p->length);
	copy->way = way;
	here->outbox[here->sent++] = copy;
	return copy;
}
INLINE int port_redirect(struct packet *p, u32 hop)
{
	p->way = WAY_WIRE;
	return hop ? VERDICT_SENT : VERDICT_DROP;
}
INLINE int port_leave(struct packet *p, u32 hop)
{
	(void)p;
	(void)hop;
	return VERDICT_PASS;
}
INLINE void port_send_copy(struct packet *p, u32 hop)
{
	if (hop)
		host_copy(p, WAY_WIRE);
}
/* The caller is the parking interface. */
INLINE int port_park(struct packet *p)
{
	port_count(COUNT_PARKED);
	p->way = WAY_PARKED;
	return VERDICT_SENT;
}
INLINE int port_was_parked(struct packet *p)
{
	(void)p;
	return here->from_parking;
}
INLINE int port_deliver(struct packet *p)
{
	p->way = WAY_LOCAL;
	return VERDICT_SENT;
}
INLINE void port_deliver_copy(struct packet *p, u32 ifindex)
{
	(void)ifindex;
	host_copy(p, WAY_LOCAL);
}

/* A piece of the packet in hand leaves under the header of the emission in scratch. */
static void host_piece(const struct packet *p, const struct emission *m)
{
	struct packet *piece = host_copy(p, WAY_WIRE);

	if (!piece)
		return;
	piece->length = piece_shape(piece, m);
	if (m->length <= piece->gso_size)
		piece->gso_size = 0;
	checksum_anew(piece);
}
INLINE void port_emit(struct packet *p)
{
	host_piece(p, &here->scratch.emission);
	port_count(COUNT_EMITTED);
}

/* The first `head` bytes leave by the emission; the rest stays in hand. */
static int port_split(struct packet *p, u32 head)
{
	struct scratch *x = &here->scratch;
	struct emission *m = &x->emission;
	u32 at = AT_TCP + m->header, payload = m->payload;

	if (!head || head >= payload)
		return -1;
	m->length = head;
	host_piece(p, m);
	memmove(p->data + at, p->data + at + head, payload - head);
	p->length -= head;
	x->segment.payload = payload;
	x->segment.new_payload = payload - head;
	return 0;
}
static int port_split_finish(struct packet *p)
{
	if (p->length - AT_TCP - here->scratch.segment.header <= p->gso_size)
		p->gso_size = 0;
	checksum_anew(p);
	return 0;
}

#endif
