/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors about a subsession: whose packet was it, and who must hear of it?
 *
 * A router on the way knows subsessions only.  What it says of one ("too big", RFC 1191) is told hop by hop to the agent that
 * sent the packet on, in the numbers of that hop, until the host whose stack made it hears of its own session.
 */
#ifndef DYSCO_ICMP_H
#define DYSCO_ICMP_H
#include "anchor.h"

struct wire_icmp {
	u8 type, code;
	u16 checksum;
	be32 rest;
};

/* What an error quotes: the header of the packet and the first eight bytes of TCP. */
struct wire_quoted {
	struct wire_ip ip;
	be16 sport, dport;
	be32 seq;
};
_Static_assert(sizeof(struct wire_quoted) == 28, "wire_quoted");

enum { ICMP_UNREACHABLE = 3, ICMP_TIME_EXCEEDED = 11, ICMP_PARAMETER = 12, PROTOCOL_ICMP = 1 };
enum { AT_ICMP = AT_TCP, AT_QUOTED = AT_ICMP + sizeof(struct wire_icmp), ICMP_ERROR_BYTES = AT_QUOTED + sizeof(struct wire_quoted) };

/* How the packet was called on the other side of this agent, and where it came from there: 0 if it is our own host's. */
struct origin {
	struct five_tuple tuple;
	u32 seq;
	be32 neighbour, us;
};

/* The number that our local side gave it. */
INLINE u32 number_before(const struct entry *arriving, const struct five_tuple *key, const struct five_tuple *local, u32 seq)
{
	struct reconfig *r = arriving->slow ? record_of(arriving) : 0;
	struct five_tuple out_key = *local;
	struct entry *out = port_egress(&out_key);

	if (r && same_tuple(key, &r->new_in))
		return seq + r->beta_out;
	return out ? seq - out->to.seq_delta : seq;
}

INLINE struct origin origin_of(const struct session *s, const struct entry *e, const struct five_tuple *key, u32 seq)
{
	struct origin o = { reversed(&e->to.to), 0, 0, 0 };
	struct five_tuple other = e->side == SIDE_RIGHT ? s->left_sub : reversed(&s->right_sub);

	o.seq = number_before(e, key, &o.tuple, seq);
	if (!(e->side == SIDE_RIGHT ? s->left_sub.dport : s->right_sub.dport))
		return o; /* our own host's, or that of one behind this edge */
	struct entry *came = port_ingress(&other);
	o.seq -= came ? came->to.seq_delta : 0;
	o.tuple = other;
	o.neighbour = other.src;
	o.us = other.dst;
	return o;
}

/* Writes the error as the other side is to get it. */
INLINE int error_rewrite(struct packet *p, const struct origin *o, struct wire_ip *ip, struct wire_icmp *icmp, struct wire_quoted *q)
{
	struct wire_quoted old = *q;
	be32 src = o->neighbour ? o->us : ip->src, dst = o->neighbour ? o->neighbour : o->tuple.src;
	u64 outer = 0, inner = 0, change = 0;

	sum_replace32(&outer, ip->src, src);
	sum_replace32(&outer, ip->dst, dst);
	ip->src = src;
	ip->dst = dst;
	ip->checksum = checksum_apply(ip->checksum, outer);
	sum_replace32(&inner, q->ip.src, o->tuple.src);
	sum_replace32(&inner, q->ip.dst, o->tuple.dst);
	q->ip.checksum = checksum_apply(q->ip.checksum, inner);
	q->ip.src = o->tuple.src;
	q->ip.dst = o->tuple.dst;
	q->sport = o->tuple.sport;
	q->dport = o->tuple.dport;
	q->seq = be32_of(o->seq);
	change = inner;
	sum_replace16(&change, old.ip.checksum, q->ip.checksum);
	sum_replace16(&change, old.sport, q->sport);
	sum_replace16(&change, old.dport, q->dport);
	sum_replace32(&change, old.seq, q->seq);
	icmp->checksum = checksum_apply(icmp->checksum, change);
	return port_store(p, AT_IP, ip, sizeof(*ip)) || port_store(p, AT_ICMP, icmp, sizeof(*icmp)) ||
	       port_store(p, AT_QUOTED, q, sizeof(*q));
}

/* Whether it may be an error at all: the first look, without a copy. */
INLINE int is_icmp(struct packet *p)
{
	struct wire_ethernet *ethernet = port_data(p);
	struct wire_ip *ip = (void *)(ethernet + 1);

	return (void *)(ip + 1) <= port_data_end(p) && ethernet->type == be16_of(ETHERTYPE_IPV4) && ip->protocol == PROTOCOL_ICMP &&
	       ip->version_length == 0x45;
}

/* Program: an ICMP message arrives. */
INLINE int icmp_ingress(struct packet *p)
{
	struct wire_ip ip;
	struct wire_icmp icmp;
	struct wire_quoted q;

	if (port_length(p) < ICMP_ERROR_BYTES || port_load(p, AT_IP, &ip, sizeof(ip)) || port_load(p, AT_ICMP, &icmp, sizeof(icmp)) ||
	    port_load(p, AT_QUOTED, &q, sizeof(q)))
		return VERDICT_PASS;
	if ((icmp.type != ICMP_UNREACHABLE && icmp.type != ICMP_TIME_EXCEEDED && icmp.type != ICMP_PARAMETER) ||
	    q.ip.version_length != 0x45 || q.ip.protocol != PROTOCOL_TCP || q.ip.fragment & be16_of(0x1fff))
		return VERDICT_PASS;
	struct five_tuple key = { q.ip.dst, q.ip.src, q.dport, q.sport };
	struct entry *e = port_ingress(&key);
	u64 nonce = e ? e->nonce : 0;
	struct session *s = e && !(e->flags & ENTRY_TOMBSTONE) ? port_session(&nonce) : 0;
	if (!s)
		return VERDICT_PASS;
	struct origin o = origin_of(s, e, &key, be32_of(q.seq));
	if (error_rewrite(p, &o, &ip, &icmp, &q))
		return VERDICT_DROP;
	port_count(COUNT_ICMP_TRANSLATED);
	if (!o.neighbour)
		return VERDICT_PASS;
	u32 hop = port_route(p, o.neighbour, 0);
	return hop ? port_redirect(p, hop) : VERDICT_DROP;
}

#endif
