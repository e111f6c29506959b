/* SPDX-License-Identifier: Apache-2.0 */
/* To which core a frame goes: cores.h says which one has a session.  One core alone never asks.
 *
 *   KNOWN   its five-tuple is looked up: here, then among the claims.  Nobody's: it stays where it arrives, but
 *   ASK     a message of ours names its session by a nonce: the cores ask themselves one after the other;
 *   HOME    a set-up whose session nobody has goes to the core of the five-tuple that it will have in this host;
 *   HERE    whatever it is, this core sees it.
 */
#ifndef DYSCO_DPDK_STEER_H
#define DYSCO_DPDK_STEER_H
#include "datapath.h"
#include "mbuf_port.h"

enum stage { STAGE_KNOWN, STAGE_ASK, STAGE_HOME, STAGE_HERE };
enum { WAY_ARRIVING = 0x80, MOST_HOPS = 4 };

/* What steers a frame: TCP's five-tuple, or that of the packet of ours that an ICMP error quotes.  0: nothing does. */
INLINE int steering_tuple(const struct rte_mbuf *m, u32 arriving, struct five_tuple *t)
{
	const u8 *data = rte_pktmbuf_mtod(m, const u8 *);
	const struct wire_ethernet *ethernet = (const struct wire_ethernet *)data;
	const struct wire_ip *ip = (const struct wire_ip *)(data + AT_IP);

	if (m->data_len < AT_TCP + 8 || ethernet->type != be16_of(ETHERTYPE_IPV4) || ip->version_length != 0x45 ||
	    ip->fragment & be16_of(0x3fff))
		return 0;
	if (likely(ip->protocol == PROTOCOL_TCP)) {
		memcpy(t, &ip->src, sizeof(*t));
		return 1;
	}
	if (!arriving || ip->protocol != PROTOCOL_ICMP || m->data_len < ICMP_ERROR_BYTES)
		return 0;
	const struct wire_quoted *q = (const struct wire_quoted *)(data + AT_QUOTED);
	*t = (struct five_tuple){ q->ip.dst, q->ip.src, q->dport, q->sport };
	return q->ip.protocol == PROTOCOL_TCP;
}

INLINE void lane_flush(struct lane *l)
{
	if (!l->waiting)
		return;
	u32 sent = rte_ring_sp_enqueue_burst(l->in, (void **)l->mbuf, l->waiting, 0);
	if (sent < l->waiting)
		rte_pktmbuf_free_bulk(l->mbuf + sent, l->waiting - sent);
	l->lost += l->waiting - sent;
	l->waiting = 0;
}

INLINE void hand_on(struct agent *a, u32 to, struct rte_mbuf *m, struct way way)
{
	struct lane *l = &a->to[to];

	if (l->waiting == BURST)
		lane_flush(l);
	*way_of(m) = way;
	l->mbuf[l->waiting++] = m;
	a->handed++;
}

/* ---- messages, which name a session ---- */

/* Where the payload of a TCP frame begins; beyond its end: it has none. */
INLINE u32 payload_at(const struct rte_mbuf *m)
{
	const struct wire_tcp *tcp = rte_pktmbuf_mtod_offset(m, const struct wire_tcp *, AT_TCP);

	return m->data_len < AT_OPTIONS ? m->data_len : AT_TCP + tcp_header_length(tcp);
}

/* The message in a frame, if it has one of at least so many bytes. */
INLINE const struct message_header *message_in(const struct rte_mbuf *m, u32 bytes)
{
	u32 at = payload_at(m);
	const struct message_header *h = rte_pktmbuf_mtod_offset(m, const struct message_header *, at);

	return at + bytes <= m->data_len && h->magic == be16_of(MESSAGE_MAGIC) && h->version == MESSAGE_VERSION_IPV4 ? h : 0;
}

static const struct setup_message *setup_in(const struct rte_mbuf *m)
{
	const struct message_header *h = message_in(m, sizeof(struct setup_message));

	return h && h->type == MESSAGE_SETUP ? (const struct setup_message *)h : 0;
}

/* The right anchor's name in a new path's last SYN, 0: it is no such. */
static u64 handle_in(const struct rte_mbuf *m, const struct setup_message *setup)
{
	const u8 *at = (const u8 *)(setup + 1), *end = rte_pktmbuf_mtod_offset(m, const u8 *, m->data_len);
	u64 handle = 0;

	for (; at + 2 <= end && at[1] >= 2 && at + at[1] <= end; at += at[1]) {
		if (at[0] == TLV_CHAIN)
			return 0;
		if (at[0] == TLV_RECONFIGURATION && at[1] == sizeof(struct tlv_reconfiguration))
			memcpy(&handle, at + __builtin_offsetof(struct tlv_reconfiguration, handle), sizeof(handle));
	}
	return handle;
}

INLINE int has_session(const struct agent *a, u64 nonce) { return nonce && table_find(&a->sessions.table, &nonce); }

/* Whether this core has the session that a message names. */
static int names_ours(const struct agent *a, const struct rte_mbuf *m)
{
	const struct message_header *h = message_in(m, sizeof(*h));
	const struct setup_message *setup = setup_in(m);

	return h && (has_session(a, h->nonce) || (setup && has_session(a, handle_in(m, setup))));
}

/* The core whose session this set-up's will be, unless somebody has it. */
static u32 home_of(const struct agent *a, const struct setup_message *setup, const struct five_tuple *arrived)
{
	struct five_tuple session = setup->session, sent = setup->subsession;

	nat_apply(&session, &sent, arrived);
	return core_of(&a->shared->spread, &session);
}

/* The core that a tag names in a SYN that leaves; this one if it has none. */
static u32 tagged_core(const struct agent *a, const struct rte_mbuf *m)
{
	const u8 *tcp = rte_pktmbuf_mtod_offset(m, const u8 *, AT_TCP);
	u32 end = RTE_MIN(payload_at(m), (u32)m->data_len) - AT_TCP;

	for (u32 at = 20; at + 6 <= end && tcp[at] != OPTION_END; at += tcp[at] == OPTION_NOP ? 1 : RTE_MAX(tcp[at + 1], (u8)2))
		if (tcp[at] == OPTION_TAG && tcp[at + 1] == 6)
			return tcp[at + 5] % MAX_CORES < a->shared->spread.cores ? tcp[at + 5] % MAX_CORES : a->number;
	return a->number;
}

/* ---- stages ---- */

/* A frame whose five-tuple is nobody's.  Non-zero: it stays here. */
static int stranger(struct agent *a, struct rte_mbuf *m, u32 arriving, struct way way, const struct five_tuple *t)
{
	const struct wire_tcp *tcp = rte_pktmbuf_mtod_offset(m, const struct wire_tcp *, AT_TCP);
	const struct setup_message *setup;

	if (m->data_len < AT_OPTIONS || rte_pktmbuf_mtod_offset(m, const struct wire_ip *, AT_IP)->protocol != PROTOCOL_TCP)
		return 1;
	way.left = (u8)a->shared->spread.cores;
	way.home = (u8)a->number;
	way.stage = STAGE_ASK;
	if (arriving && tcp->data_offset >= 0x60 && m->data_len >= AT_OPTIONS + 4 && *(const be32 *)(tcp + 1) == CONTROL_OPTION) {
		hand_on(a, a->number, m, way);
		return 0;
	}
	if (!opens(tcp))
		return 1;
	if (arriving && (setup = setup_in(m))) {
		way.home = (u8)home_of(a, setup, t);
		hand_on(a, a->number, m, way);
		return 0;
	}
	u32 core = arriving ? a->number : tagged_core(a, m);
	if (core == a->number)
		return 1;
	way.stage = STAGE_HERE;
	hand_on(a, core, m, way);
	return 0;
}

/* A frame that has no entry here.  Non-zero: it stays all the same. */
static int elsewhere(struct agent *a, struct rte_mbuf *m, u32 arriving, struct way way)
{
	struct five_tuple t;
	u32 core;

	if (!steering_tuple(m, arriving, &t) || !way.left--)
		return 1;
	if ((core = core_of(&a->shared->spread, &t)) == a->number) {
		pthread_mutex_lock(&a->claims.lock);
		const u64 *claimed = table_find(&a->claims.of[arriving], &t);
		core = claimed ? (u32)*claimed : a->number;
		pthread_mutex_unlock(&a->claims.lock);
		if (core == a->number)
			return stranger(a, m, arriving, way, &t);
	}
	hand_on(a, core, m, way);
	return 0;
}

/* Asks this core; sends the frame to the next, or home when all have been asked.  Non-zero: it stays. */
static int ask(struct agent *a, struct rte_mbuf *m, struct way way)
{
	u32 next = (a->number + 1) % a->shared->spread.cores;

	if (names_ours(a, m))
		return 1;
	if (!--way.left) {
		next = way.home;
		way.stage = STAGE_HOME;
	}
	hand_on(a, next, m, way);
	return 0;
}

/* Somebody else may have the five-tuple that a set-up brings: it is theirs to say who keeps it.  Non-zero: it stays. */
static int come_home(struct agent *a, struct rte_mbuf *m, struct way way)
{
	const struct setup_message *setup = setup_in(m);
	struct five_tuple t, session, sent;

	if (!setup || !steering_tuple(m, 1, &t))
		return 1;
	session = setup->session, sent = setup->subsession;
	nat_apply(&session, &sent, &t);
	session = reversed(&session);
	if (table_find(&a->egress, &session))
		return 1;
	pthread_mutex_lock(&a->claims.lock);
	const u64 *claimed = table_find(&a->claims.of[0], &session);
	u32 core = claimed ? (u32)*claimed : a->number;
	pthread_mutex_unlock(&a->claims.lock);
	if (core == a->number)
		return 1;
	way.stage = STAGE_HERE;
	hand_on(a, core, m, way);
	return 0;
}

#endif
