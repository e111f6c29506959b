/* SPDX-License-Identifier: Apache-2.0 */
#include "stack.h"

#include <string.h>

enum { IP_AT = 14, TCP_AT = 34, OPTIONS_AT = 54, WINDOW = 1000, SCALE = 7, FIN = 1, SYN = 2, RST = 4, ACK = 16 };
static const uint32_t FIRST[2] = { 1000, 5000 };        /* sequence numbers of the SYNs */

static uint32_t get16(const uint8_t *p) { return (uint32_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return get16(p) << 16 | get16(p + 2); }
static void put16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16), put16(p + 2, v); }

/* ---- segments ---- */

struct view {
	uint32_t seq, ack, flags, length, data_at, payload, has_ts, tsval, tsecr, tsval_at;
};

static uint32_t sum(const uint8_t *at, uint32_t n, uint32_t seed)
{
	uint32_t s = seed;

	for (uint32_t i = 0; i < n; i++)
		s += i & 1 ? at[i] : (uint32_t)at[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

static uint32_t tcp_sum(const struct packet *p)
{
	uint32_t n = p->length - TCP_AT;
	return sum(p->data + TCP_AT, n, sum(p->data + IP_AT + 12, 8, 6 + n));
}

int stack_sum_holds(const struct packet *p) { return sum(p->data + IP_AT, 20, 0) == 0xffff && tcp_sum(p) == 0xffff; }

static void timestamp_find(const uint8_t *tcp, uint32_t header, struct view *v)
{
	for (uint32_t at = 20; at + 10 <= header && tcp[at];) {
		if (tcp[at] == 8) {
			v->has_ts = 1;
			v->tsval_at = at;
			v->tsval = get32(tcp + at + 2);
			v->tsecr = get32(tcp + at + 6);
		}
		at += tcp[at] == 1 || !tcp[at + 1] ? 1 : tcp[at + 1];
	}
}

static struct view read(const struct packet *p)
{
	const uint8_t *tcp = p->data + TCP_AT;
	uint32_t header = (uint32_t)(tcp[12] >> 4) * 4;
	struct view v = { .seq = get32(tcp + 4), .ack = get32(tcp + 8), .flags = tcp[13], .data_at = TCP_AT + header };

	v.payload = p->length - v.data_at;
	v.length = v.payload + !!(v.flags & FIN) + !!(v.flags & SYN);
	timestamp_find(tcp, header, &v);
	return v;
}

uint32_t stack_payload(const struct packet *p) { return read(p).payload; }

static uint32_t syn_options(uint8_t *o)
{
	static const uint8_t before[] = { 2, 4, 5, 0xb4, 4, 2, 8, 10 }, after[] = { 1, 3, 3, SCALE };

	memcpy(o, before, sizeof(before));
	memcpy(o + 16, after, sizeof(after));
	return 8;
}

/* A segment of `n` bytes from byte `from` on, the FIN among them if it is there. */
static void write(struct end *e, int server, const be32 address[2], uint32_t flags, uint32_t from, uint32_t n, struct packet *p)
{
	uint8_t *ip = p->data + IP_AT, *tcp = p->data + TCP_AT, *o = p->data + OPTIONS_AT;
	uint32_t fin = e->fin && n && from + n > e->bytes + 1, payload = flags & SYN ? 0 : n - fin;

	memset(p, 0, OPTIONS_AT + 100);
	p->data[12] = 8; /* IPv4 */
	ip[0] = 0x45, ip[6] = 0x40, ip[8] = 64, ip[9] = 6;
	memcpy(ip + 12, &address[server], 4);
	memcpy(ip + 16, &address[!server], 4);
	put16(tcp, server ? STACK_PORT : STACK_CLIENT_PORT);
	put16(tcp + 2, server ? STACK_CLIENT_PORT : STACK_PORT);
	put32(tcp + 4, FIRST[server] + from);
	if (flags & ACK)
		put32(tcp + 8, FIRST[!server] + e->rcv_nxt);
	uint32_t at = 2, options = 12;
	if (flags & SYN)
		at = syn_options(o) - 2, options = 20;
	else
		o[0] = o[1] = 1;
	e->ts_sent = 100 + 2 * e->snd_nxt + e->rcv_nxt; /* ticks whenever something happens */
	o[at] = 8, o[at + 1] = 10;
	put32(o + at + 2, e->ts_sent);
	put32(o + at + 6, e->ts_recent);
	tcp[12] = (uint8_t)((20 + options) / 4 << 4);
	tcp[13] = (uint8_t)(flags | (fin ? FIN : 0));
	put16(tcp + 14, WINDOW);
	p->length = OPTIONS_AT + options + payload;
	for (uint32_t i = 0; i < payload; i++)
		o[options + i] = (uint8_t)(from + i);
	put16(ip + 2, p->length - IP_AT);
	put16(ip + 10, ~sum(ip, 20, 0));
	put16(tcp + 16, ~tcp_sum(p));
	e->ack_sent = e->rcv_nxt;
	e->ack_due = 0;
}

/* ---- what an end host sends ---- */

uint32_t stack_last(const struct end *e) { return e->bytes + e->fin; }

int stack_can(const struct end *e, u32 what)
{
	switch (what) {
	case SENDS_SYN: return e->state == END_CLOSED || e->state == END_OPENING;
	case SENDS_ACK: return e->state == END_OPEN && e->ack_due;
	case SENDS_BYTE: return e->state == END_OPEN && e->snd_nxt <= stack_last(e);
	case SENDS_TWO: return e->state == END_OPEN && e->snd_nxt < stack_last(e);
	case SENDS_AGAIN: return e->state == END_ANSWERING || (e->state == END_OPEN && e->snd_una < e->snd_nxt);
	}
	return 0;
}

void stack_sends(struct end *e, int server, const be32 address[2], u32 what, struct packet *p)
{
	uint32_t n = what == SENDS_BYTE ? 1 : what == SENDS_TWO ? 2 : 0, from = e->snd_nxt;

	if (what == SENDS_SYN || e->state == END_ANSWERING) {
		e->state = what == SENDS_SYN ? END_OPENING : END_ANSWERING;
		e->snd_nxt = 1;
		write(e, server, address, e->state == END_ANSWERING ? SYN | ACK : SYN, 0, 0, p);
		return;
	}
	if (what == SENDS_AGAIN)
		from = e->snd_una, n = e->snd_nxt - from;
	if (from + n > e->snd_nxt)
		e->snd_nxt = from + n;
	write(e, server, address, ACK, from, n, p);
}

/* ---- what an end host receives ---- */

/* SYN and SYN-ACK.  Non-zero: answered at once. */
static int opens(struct end *e, int server, const be32 address[2], const struct view *v, struct packet *p)
{
	if (server && !(v->flags & ACK) && (e->state == END_CLOSED || e->state == END_ANSWERING)) {
		e->state = END_ANSWERING;
		e->rcv_nxt = 1;
		e->ts_recent = v->tsval;
		stack_sends(e, server, address, SENDS_AGAIN, p);
		return 1;
	}
	if (server || !(v->flags & ACK) || v->ack != FIRST[0] + 1)
		return 0;
	if (e->state == END_OPENING) {
		e->state = END_OPEN;
		e->snd_una = e->rcv_nxt = 1;
		e->ts_recent = v->tsval;
	}
	write(e, server, address, ACK, e->snd_nxt, 0, p);
	return 1;
}

static void takes(struct end *e, const struct view *v, uint32_t from, const uint8_t *payload)
{
	for (uint32_t i = 0; i < v->payload; i++)
		if (payload[i] != from + i)
			wrong("an end host gets a byte under a number that is not its own");
	if (v->flags & FIN) {
		if (e->fin_at && e->fin_at != from + v->payload)
			wrong("an end host gets a second FIN");
		e->fin_at = from + v->payload;
	}
	for (uint32_t i = 0; i < v->length; i++)
		e->got |= 1u << (from + i);
	while (e->got >> e->rcv_nxt & 1)
		e->rcv_nxt++;
	e->ack_due = 1;
}

int stack_receives(struct end *e, int server, const be32 address[2], struct packet *p)
{
	struct view v = read(p);
	uint32_t from = v.seq - FIRST[!server], acked = v.ack - FIRST[server];

	if (!stack_sum_holds(p))
		wrong("an end host gets a damaged segment");
	if (get16(p->data + TCP_AT) != (server ? STACK_CLIENT_PORT : STACK_PORT) || get16(p->data + TCP_AT + 2) != (server ? STACK_PORT : STACK_CLIENT_PORT))
		return 0; /* of no session here: a stack would reset it */
	if (memcmp(p->data + IP_AT + 16, &address[server], 4) || memcmp(p->data + IP_AT + 12, &address[!server], 4))
		wrong("an end host gets a segment that is not of its session");
	if (v.flags & RST)
		wrong("an end host is reset");
	if (v.flags & SYN)
		return opens(e, server, address, &v, p);
	if (e->state == END_ANSWERING)
		e->state = END_OPEN, e->snd_una = 1;
	if (!v.has_ts)
		wrong("an end host gets a segment without a timestamp");
	if (v.tsecr > e->ts_sent)
		wrong("an end host gets an echo that it has not sent");
	if (acked > e->snd_nxt)
		wrong("an end host gets an acknowledgment of what it has not sent");
	if (from > 30 || from + v.length > 31)
		wrong("an end host gets a number from nowhere");
	if (v.tsval < e->ts_recent || (!v.length && from < e->ack_sent)) {
		e->ack_due = 1; /* PAWS, or behind the window: dropped, and answered */
		return 0;
	}
	if (from <= e->ack_sent)
		e->ts_recent = v.tsval;
	if (acked > e->snd_una)
		e->snd_una = acked;
	if (v.length)
		takes(e, &v, from, p->data + v.data_at);
	return 0;
}

int stack_closed(const struct end *e)
{
	return e->state == END_OPEN && e->fin_at && e->rcv_nxt == e->fin_at + 1 && e->snd_una == stack_last(e) + 1;
}

/* ---- a firewall ---- */

enum { SEEN = 1, RESET };

void stack_forwards(struct watch watch[2], be32 client, const struct packet *p)
{
	struct view v = read(p);
	int way = memcmp(p->data + IP_AT + 12, &client, 4) ? STREAM_LEFTWARD : STREAM_RIGHTWARD;
	struct watch *w = &watch[way], *back = &watch[!way];

	if (!stack_sum_holds(p))
		wrong("a middlebox gets a damaged segment");
	if (v.flags & RST) {
		w->known = back->known = RESET;
		return;
	}
	if (v.flags & SYN) {
		if (w->known != SEEN || w->first != v.seq + 1) /* not one sent again */
			*w = (struct watch){ .known = SEEN, .first = v.seq + 1, .high = v.seq + 1 };
		return;
	}
	if (!w->known && !back->known)
		wrong("a middlebox gets a segment of a session that it has not seen begin");
	if (w->known != SEEN)
		return; /* it has overtaken the SYN-ACK, or comes late */
	if (v.length && v.seq < w->first)
		wrong("a middlebox gets a number from before the beginning of the stream");
	if (v.flags & ACK && back->known == SEEN && v.ack > back->high)
		wrong("a middlebox gets an acknowledgment of what has not passed");
	if (v.payload) {
		uint32_t base = v.seq - p->data[v.data_at] + 1;
		if (w->base && w->base != base)
			wrong("a middlebox gets a byte under a number that is not its own");
		w->base = base;
	}
	w->begun |= v.length && v.seq == w->first;
	if (v.seq + v.length > w->high)
		w->high = v.seq + v.length;
}
