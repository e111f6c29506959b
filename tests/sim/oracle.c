/* SPDX-License-Identifier: Apache-2.0 */
/* What a careful observer of the wire expects of every subsession: an ordinary TCP connection.  Reads packets itself. */
#include <string.h>

#include "sim.h"

int view_read(const struct packet *p, struct view *v)
{
	const uint8_t *d = p->data, *t = d + TCP_AT;

	memset(v, 0, sizeof(*v));
	if (p->length < TCP_AT + 20 || d[IP_AT] != 0x45 || d[IP_AT + 9] != 6 || get16(d + IP_AT + 2) != p->length - IP_AT)
		return -1;
	uint32_t header = (t[12] >> 4) * 4u;
	if (header < 20 || TCP_AT + header > p->length)
		return -1;
	v->src = get32(d + IP_AT + 12), v->dst = get32(d + IP_AT + 16);
	v->sport = get16(t), v->dport = get16(t + 2), v->seq = get32(t + 4), v->ack = get32(t + 8);
	v->flags = t[13], v->window = get16(t + 14);
	v->data_at = TCP_AT + header;
	v->payload = p->length - v->data_at;
	for (uint32_t at = 20; at < header;) {
		const uint8_t *o = t + at;
		uint32_t n = o[0] == 1 ? 1 : at + 1 < header ? o[1] : 0;
		if (o[0] == 0 || n == 0 || at + n > header)
			break;
		if (o[0] == 2)
			v->mss = get16(o + 2);
		else if (o[0] == 3)
			v->has_scale = 1, v->scale = o[2];
		else if (o[0] == 4)
			v->sack_ok = 1;
		else if (o[0] == 8)
			v->has_ts = 1, v->tsval = get32(o + 2), v->tsecr = get32(o + 6);
		else if (o[0] == 254)
			v->control = n == 4, v->told = n != 4; /* a message; or it tells a beta */
		else if (o[0] == 5)
			for (v->sacks = 0; v->sacks < (n - 2) / 8 && v->sacks < 4; v->sacks++)
				v->sack[v->sacks] = (struct range){ get32(o + 2 + 8 * v->sacks), get32(o + 6 + 8 * v->sacks) };
		at += n;
	}
	return 0;
}

static uint32_t sum(const uint8_t *from, uint32_t n, uint32_t seed)
{
	uint64_t words = 0;     /* as they lie in memory: swapped at the end (RFC 1071 2) */
	uint32_t i = 0, word;

	for (; i + 4 <= n; i += 4) {
		memcpy(&word, from + i, 4);
		words += word;
	}
	while (words >> 16)
		words = (words & 0xffff) + (words >> 16);
	uint16_t folded = (uint16_t)words;
	seed += get16((const uint8_t *)&folded);
	for (; i < n; i++)
		seed += i & 1 ? from[i] : (uint32_t)from[i] << 8;
	while (seed >> 16)
		seed = (seed & 0xffff) + (seed >> 16);
	return seed;
}

static uint32_t tcp_sum(const struct packet *p)
{
	uint32_t n = p->length - TCP_AT;

	return sum(p->data + TCP_AT, n, sum(p->data + IP_AT + 12, 8, 6 + n));
}

int oracle_checksum(const struct packet *p) { return tcp_sum(p) == 0xffff && sum(p->data + IP_AT, 20, 0) == 0xffff; }

void sim_checksum(struct packet *p)
{
	put16(p->data + IP_AT + 2, p->length - IP_AT);
	put16(p->data + IP_AT + 10, 0);
	put16(p->data + IP_AT + 10, ~sum(p->data + IP_AT, 20, 0));
	put16(p->data + TCP_AT + 16, 0);
	put16(p->data + TCP_AT + 16, ~tcp_sum(p));
}

static struct flow *flow_of(struct sim *s, struct five_tuple key)
{
	uint32_t h = (key.src * 31 + key.dst) * 31 + key.sport * 65537u + key.dport;

	h = (h ^ h >> 13) * 0x5bd1e995u;
	for (uint32_t i = 0; i < SIM_FLOWS; i++) {
		struct flow *f = &s->flow[(h + i) % SIM_FLOWS];
		if (!f->used || !memcmp(&f->key, &key, sizeof(key))) {
			f->key = key;
			return f;
		}
	}
	sim_wrong(s, "the observer has run out of room for subsessions");
	return s->flow;
}

/* Every handshake on the wire offers what the end hosts have offered. */
static void offer_judge(struct sim *s, const struct view *v)
{
	const struct scenario *c = &s->scenario;
	int answer = !!(v->flags & F_ACK), known = v->scale == c->window_shift[answer];

	for (uint32_t i = 0; c->proxy && i < c->sessions; i++) /* or what a proxy's has */
		known |= s->proxy[i].inner && v->scale == (answer ? s->proxy[i].inner : s->proxy[i].outer)->shift_out;
	if (v->mss != c->mss || !v->has_scale || !known || v->sack_ok != c->sack || v->has_ts != c->timestamps)
		sim_wrong(s, "a handshake offered mss %u, scale %u, sack %u, timestamps %u", v->mss, v->scale, v->sack_ok, v->has_ts);
}

void oracle_wire(struct sim *s, const struct packet *p, int end_host)
{
	struct view v;

	if (view_read(p, &v)) {
		sim_wrong(s, "a malformed packet was sent");
		return;
	}
	if (!oracle_checksum(p)) {
		sim_wrong(s, "a wrong checksum was sent (flags %x, seq %u, %u bytes)", v.flags, v.seq, v.payload);
		return;
	}
	sign_judge(s, p, &v);
	if (v.control || v.flags & F_RST)
		return;
	struct five_tuple key = { v.src, v.dst, (be16)v.sport, (be16)v.dport }, back = { v.dst, v.src, (be16)v.dport, (be16)v.sport };
	struct flow *f = flow_of(s, key);
	uint32_t end = v.seq + v.payload + !!(v.flags & F_FIN);
	if (v.flags & F_SYN) {
		offer_judge(s, &v);
		int again = f->used && f->isn == v.seq; /* else the ports are used for another subsession */
		f->high = again && after(f->high, v.seq + 1) ? f->high : v.seq + 1;
		f->isn = v.seq;
		f->used = 1;
		return;
	}
	if (!f->used)
		return;
	/* middleboxes pass on what a lossy network has left of the stream, and what a new path has brought earlier than
	 * the old one the rest: gaps are theirs to have */
	int complete = end_host || !(s->scenario.loss_ppm + s->scenario.reorder_ppm + s->scenario.jitter_us +
				     s->scenario.reconfigurations + s->scenario.proxy + s->scenario.moves + s->scenario.dies);
	if (complete && v.payload && after(v.seq, f->high))
		sim_wrong(s, "a gap of %u bytes on a subsession from port %u to %u", v.seq - f->high, v.sport, v.dport);
	if (after(end, f->high))
		f->high = end;
	struct flow *r = flow_of(s, back);
	if (!r->used || !(v.flags & F_ACK))
		return;
	if (after(v.ack, r->high))
		sim_wrong(s, "an ack of %u, %u above what the subsession has carried (port %u to %u)", v.ack, v.ack - r->high, v.sport, v.dport);
	for (uint32_t i = 0; i < v.sacks; i++)
		if (after(v.sack[i].to, r->high))
			sim_wrong(s, "a SACK block %u above what the subsession has carried", v.sack[i].to - r->high);
}
