/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP end point (RFC 9293, 7323, 2018), as strict as Linux where that matters: PAWS, RFC 5961, no reneging. */
#include <string.h>

#include "sim.h"

enum { RTO_US = 30000, RTO_MAX_US = 2000000, CWND = 24, ACK_DELAY_US = 2000, MAX_WINDOW = 1 << 20 };

static uint32_t clock_of(const struct tcp *t) { return (uint32_t)(t->sim->now / 1000) + t->ts_offset; }
static uint32_t offset_of(uint32_t seq, uint32_t isn) { return seq - isn - 1; }

/* What the receiver has room for, from rcv_nxt on. */
static uint32_t room_of(const struct tcp *t)
{
	uint32_t kept = t->relays || t->sim->scenario.slow ? t->rcv_nxt - t->irs - 1 - t->read : 0;

	return kept < t->own_window ? t->own_window - kept : 0;
}

/* ---- sending ---- */

static uint8_t *start(struct tcp *t, struct packet *p, uint32_t flags, uint32_t seq)
{
	uint8_t *d = p->data, *o = d + TCP_AT + 20;

	memset(d, 0, TCP_AT + 60);
	d[12] = 8;
	d[IP_AT] = 0x45;
	d[IP_AT + 6] = 0x40;
	d[IP_AT + 8] = 64;
	d[IP_AT + 9] = 6;
	memcpy(d + IP_AT + 12, &t->address, 4);
	memcpy(d + IP_AT + 16, &t->peer, 4);
	memcpy(d + TCP_AT, &t->port, 2);
	memcpy(d + TCP_AT + 2, &t->peer_port, 2);
	put32(d + TCP_AT + 4, seq);
	put32(d + TCP_AT + 8, flags & F_ACK ? t->rcv_nxt : 0);
	d[TCP_AT + 13] = (uint8_t)flags;
	uint32_t window = flags & F_SYN ? t->own_window : room_of(t) >> t->shift_out;
	put16(d + TCP_AT + 14, window > 65535 ? 65535 : window);
	if (flags & F_SYN) {
		*o++ = 2, *o++ = 4, put16(o, t->mss), o += 2;
		if (t->sack)
			*o++ = 1, *o++ = 1, *o++ = 4, *o++ = 2;
		*o++ = 1, *o++ = 3, *o++ = 3, *o++ = (uint8_t)t->shift_out;
	}
	if (t->timestamps) {
		*o++ = 1, *o++ = 1, *o++ = 8, *o++ = 10;
		put32(o, clock_of(t));
		put32(o + 4, flags & F_ACK ? t->ts_recent : 0);
		o += 8;
	}
	if (t->sack && t->state == TCP_OPEN && t->earlies && !(flags & F_SYN)) {
		uint32_t n = t->earlies > 3 ? 3 : t->earlies;
		*o++ = 1, *o++ = 1, *o++ = 5, *o++ = (uint8_t)(2 + 8 * n);
		for (uint32_t i = 0; i < n; i++, o += 8)
			put32(o, t->early[i].from), put32(o + 4, t->early[i].to);
	}
	d[TCP_AT + 12] = (uint8_t)((o - d - TCP_AT) / 4 << 4);
	if (flags & F_ACK)
		t->last_ack_sent = t->rcv_nxt;
	return o;
}

static void finish(struct tcp *t, struct packet *p, uint8_t *end)
{
	p->length = (uint32_t)(end - p->data);
	sim_checksum(p);
	sim_host_sends(t->sim, t->host, p);
}

static void send_ack(struct tcp *t, uint32_t seq)
{
	struct packet *p = sim_packet(t->sim);

	t->ack_at = 0;
	finish(t, p, start(t, p, F_ACK, seq));
}

static uint32_t end_of_data(const struct tcp *t) { return t->iss + 1 + t->total; }

/* One data segment from `seq`, of at most `most` bytes; returns how far it reached. */
static uint32_t send_data(struct tcp *t, uint32_t seq, uint32_t most)
{
	uint32_t left = t->iss + 1 + t->available - seq, n = most < left ? most : left;
	int fin = seq + n == end_of_data(t) && t->available == t->total;
	struct packet *p = sim_packet(t->sim);
	uint8_t *o = start(t, p, F_ACK | (n ? F_PSH : 0) | (fin ? F_FIN : 0), seq);

	for (uint32_t i = 0; i < n; i++)
		*o++ = content_byte(&t->out, offset_of(seq, t->iss) + i);
	p->gso_size = n > t->mss ? t->mss : 0;
	t->fin_sent |= fin;
	t->snd_max = after(seq + n + fin, t->snd_max) ? seq + n + fin : t->snd_max; /* the answer may come at once: tombstones */
	finish(t, p, o);
	t->ack_at = 0;
	return seq + n + fin;
}

/* The first segment that has not been acknowledged, and nothing that has not been sent before. */
static void send_again(struct tcp *t)
{
	uint32_t flying = t->snd_max - t->snd_una;

	send_data(t, t->snd_una, flying < t->mss ? flying : t->mss);
}

static void output(struct tcp *t)
{
	if (t->state != TCP_OPEN)
		return;
	for (;;) {
		uint32_t flying = t->snd_nxt - t->snd_una, room = t->cwnd * t->mss;
		room = room < t->window ? room : t->window;
		uint32_t written = t->iss + 1 + t->available;
		int fin = t->available == t->total && !after(t->snd_nxt, end_of_data(t));
		if (!after(written, t->snd_nxt) && !fin)
			break;
		if (flying >= room) {
			if (!t->window && !t->rto_at)
				t->rto_at = t->sim->now + RTO_US; /* to ask again: what opens the window may get lost */
			break;
		}
		uint32_t most = t->mss * (t->sim->scenario.gso ? 1 + sim_random(t->sim, t->sim->scenario.gso == 1 ? 3 : 8) : 1);
		most = most < PAYLOAD_MAX ? most : PAYLOAD_MAX;
		if (sim_random(t->sim, 8) == 0)
			most = 1 + sim_random(t->sim, t->mss);
		most = most < room - flying ? most : room - flying;
		t->snd_nxt = send_data(t, t->snd_nxt, most);
		if (!t->rto_at)
			t->rto_at = t->sim->now + (RTO_US << t->backoff);
	}
}

/* What may be written while the session must not end: all but a few bytes, of which one goes now and then.  When the last
 * segment of a new path's handshake is lost only data can replace it, and a window that an anchor takes for a wider one than
 * is offered now settles only when data moves it. */
static uint32_t most_to_write(const struct tcp *t)
{
	uint32_t kept = t->total < 400 ? t->total : 400, told = (uint32_t)(t->sim->now / 500000);

	if (!t->held || !t->total)
		return t->total;
	return t->total - kept + (told < kept ? told : kept - 1);
}

void tcp_write(struct tcp *t, uint32_t bytes)
{
	uint32_t most = most_to_write(t);

	if (t->held && t->available >= most)
		return;
	t->available = bytes < most - t->available ? t->available + bytes : most;
	output(t);
}

/* A proxy has so many bytes to send by now. */
void tcp_offer(struct tcp *t, uint32_t available)
{
	t->available = available;
	output(t);
}

static void send_syn(struct tcp *t)
{
	struct packet *p = sim_packet(t->sim);

	finish(t, p, start(t, p, t->state == TCP_ANSWERING ? F_SYN | F_ACK : F_SYN, t->iss));
	t->rto_at = t->sim->now + ((usec)RTO_US * 4 << t->backoff);
}

void tcp_open(struct tcp *t)
{
	t->state = TCP_OPENING;
	t->cwnd = CWND;
	t->iss = sim_random(t->sim, 0) - (sim_random(t->sim, 3) ? 0 : 20000);
	t->snd_una = t->iss;
	t->snd_nxt = t->snd_max = t->iss + 1;
	send_syn(t);
}

/* ---- receiving ---- */

static void take_early(struct tcp *t, uint32_t from, uint32_t to)
{
	struct range fresh = { from, to };
	uint32_t kept = 0;

	for (uint32_t i = 0; i < t->earlies; i++) {
		struct range r = t->early[i];
		if (after(r.from, fresh.to) || after(fresh.from, r.to)) {
			t->early[kept++] = r;
			continue;
		}
		fresh.from = after(fresh.from, r.from) ? r.from : fresh.from;
		fresh.to = after(r.to, fresh.to) ? r.to : fresh.to;
	}
	t->earlies = kept;
	if (kept < 15) {
		memmove(t->early + 1, t->early, kept * sizeof(fresh));
		t->early[0] = fresh; /* the latest first, as RFC 2018 wants */
		t->earlies++;
	}
}

static void advance(struct tcp *t)
{
	for (uint32_t i = 0; i < t->earlies;) {
		if (!after(t->early[i].from, t->rcv_nxt)) {
			if (after(t->early[i].to, t->rcv_nxt))
				t->rcv_nxt = t->early[i].to;
			t->early[i] = t->early[--t->earlies];
			i = 0;
		} else {
			i++;
		}
	}
}

static void check_payload(struct tcp *t, const struct packet *p, const struct view *v)
{
	for (uint32_t i = 0; i < v->payload; i++) {
		uint32_t at = offset_of(v->seq, t->irs) + i;
		if (at >= t->peer_total || p->data[v->data_at + i] != content_byte(&t->in, at)) {
			sim_wrong(t->sim, "host %d was given a wrong byte at offset %u of %u (seq %u)", t->host, at, t->peer_total, v->seq + i);
			return;
		}
	}
	if (v->flags & F_FIN && t->leaving && v->seq + v->payload == t->rcv_nxt)
		t->peer_total = offset_of(v->seq, t->irs) + v->payload; /* its agent's: nothing more will come */
	else if (v->flags & F_FIN && offset_of(v->seq, t->irs) + v->payload != t->peer_total)
		sim_wrong(t->sim, "host %d was given a FIN after %u bytes, not %u", t->host, offset_of(v->seq, t->irs) + v->payload, t->peer_total);
}

static int end_has(const struct tcp *peer, uint32_t shift, uint32_t from, uint32_t to)
{
	if (!after(to + shift, peer->rcv_nxt))
		return 1;
	for (uint32_t i = 0; i < peer->earlies; i++)
		if (!after(peer->early[i].from, from + shift) && !after(to + shift, peer->early[i].to))
			return 1;
	return 0;
}

/* Whether the other end, or the one behind a proxy, has really received from..to of what this one has sent. */
static int peer_has(const struct tcp *t, uint32_t from, uint32_t to)
{
	const struct tcp *peer = &t->sim->end[t->other], *far = t->beyond < 0 ? 0 : &t->sim->end[t->beyond];

	return end_has(peer, peer->irs - t->iss, from, to) ||
	       (far && end_has(far, far->irs + far->in.prefix - far->in.cut - t->iss, from, to));
}

/* No receiver here takes back a window that it has offered; what a scale cuts off may go to and fro. */
static void edge_judge(struct tcp *t, const struct view *v)
{
	uint32_t edge = v->ack + (v->window << t->shift_in);
	const struct tcp *peer = &t->sim->end[t->other];

	uint32_t offered = peer->rcv_nxt - peer->irs + t->iss + room_of(peer);
	if (after(edge, offered + (2u << t->shift_in)))
		t->sim->outcome.too_wide++; /* the core does so: overshoot, which TCP repairs */
	/* two paths overtake one another, so only what was sent a millisecond later counts */
	int later = t->edge_seen && !after(t->edge_ack, v->ack) && after(v->tsval, t->edge_ts);
	if (t->edge_unknown || !sim_orderly(t->sim) || t->sim->scenario.slow || (t->edge_seen && !later))
		return;
	if (t->edge_seen && v->window < 65535 && after(t->edge, edge + (2u << t->shift_in)))
		sim_wrong(t->sim, "host %d was shown a window that ends %u below one that it was shown before", t->host, t->edge - edge);
	t->edge = !t->edge_seen || after(edge, t->edge) ? edge : t->edge;
	t->edge_ack = v->ack;
	t->edge_ts = v->tsval;
	t->edge_seen = 1;
}

/* An echo is of what this end has said, and never falls: no receiver's TS.Recent does (RFC 7323, 4.3).  Where the network
 * reorders, one from before the other anchor knew beta may come when all has settled.  How far the clock of a proxy that has left
 * was off is measured: there an echo may fall by milliseconds. */
static void echo_judge(struct tcp *t, const struct view *v)
{
	struct sim *s = t->sim;
	int early = after(t->ts_offset, v->tsecr);

	if (!v->has_ts || !(v->flags & F_ACK))
		return;
	if (early && !sim_orderly(s))
		s->outcome.late_echoes++;
	else if (early || after(v->tsecr, clock_of(t)))
		sim_wrong(s, "host %d was echoed %u, its clock went from %u to %u", t->host, v->tsecr, t->ts_offset, clock_of(t));
	if (!sim_orderly(s) || t->relays || t->beyond >= 0)
		return;
	if (t->ts_echoed && after(t->ts_echoed, v->tsecr))
		sim_wrong(s, "host %d was echoed %u after %u", t->host, v->tsecr, t->ts_echoed);
	t->ts_echoed = v->tsecr;
}

/* Acknowledgment, window and SACK; 0: the segment must be ignored. */
static int take_ack(struct tcp *t, const struct view *v)
{
	struct sim *s = t->sim;

	if (after(v->ack, t->snd_max)) {
		sim_wrong(s, "host %d was acknowledged %u, %u beyond what it has sent", t->host, v->ack, v->ack - t->snd_max);
		return 0;
	}
	if (after(t->snd_una - MAX_WINDOW, v->ack)) {
		s->outcome.old_acks++;
		return 0;
	}
	uint32_t had = v->ack - (t->leaving && t->fin_sent && v->ack == t->snd_max); /* a tombstone acknowledges its end */
	if (!peer_has(t, had, had))
		sim_wrong(s, "host %d was acknowledged %u, which its peer has not received", t->host, v->ack);
	for (uint32_t i = 0; i < v->sacks; i++) {
		if (after(v->sack[i].to, t->snd_max) || !after(v->sack[i].to, v->sack[i].from))
			sim_wrong(s, "host %d was shown SACK %u-%u, sent up to %u", t->host, v->sack[i].from, v->sack[i].to, t->snd_max);
		else if (!peer_has(t, v->sack[i].from, v->sack[i].to))
			sim_wrong(s, "host %d was shown SACK %u-%u, which its peer has not received", t->host, v->sack[i].from, v->sack[i].to);
		if (v->sack[i].from == v->ack && v->ack == t->snd_una)
			sim_wrong(s, "host %d was shown SACK at its acknowledgment %u: reneging", t->host, v->ack);
	}
	echo_judge(t, v);
	if (after(v->ack, t->snd_una)) {
		t->snd_una = v->ack;
		t->snd_nxt = after(t->snd_una, t->snd_nxt) ? t->snd_una : t->snd_nxt;
		t->dup_acks = t->backoff = 0;
		t->cwnd = t->cwnd < CWND ? t->cwnd + 1 : CWND;
		t->rto_at = t->snd_una == t->snd_max ? 0 : s->now + RTO_US;
	} else if (v->ack == t->snd_una && !v->payload && t->snd_una != t->snd_max && ++t->dup_acks == 3) {
		send_again(t);
	}
	if (!after(t->snd_una, v->ack))
		t->window = v->window << t->shift_in;
	edge_judge(t, v);
	return 1;
}

static void take_data(struct tcp *t, const struct packet *p, const struct view *v)
{
	uint32_t length = v->payload + !!(v->flags & F_FIN), end = v->seq + length;

	if (!length) {
		if (v->seq - t->rcv_nxt > MAX_WINDOW && after(t->rcv_nxt, v->seq))
			send_ack(t, t->snd_nxt);
		return;
	}
	if (t->leaving && t->fin_seen && !after(t->rcv_nxt, v->seq)) /* its agent's end of file beside its peer's */
		return;
	if (after(end, t->rcv_nxt + room_of(t) + (v->payload == 0))) { /* an end needs no room */
		t->sim->outcome.overshoot++;
		send_ack(t, t->snd_nxt);
		return;
	}
	check_payload(t, p, v);
	int in_order = !after(v->seq, t->rcv_nxt) && after(end, t->rcv_nxt);
	if (in_order) {
		t->sim->outcome.bytes += end - t->rcv_nxt;
		t->rcv_nxt = end;
		advance(t);
	} else if (after(v->seq, t->rcv_nxt)) {
		take_early(t, v->seq, end);
	}
	if (t->rcv_nxt == t->irs + 2 + t->peer_total)
		t->fin_seen = 1;
	if (in_order && !t->earlies && !t->ack_at && sim_random(t->sim, 2))
		t->ack_at = t->sim->now + ACK_DELAY_US;
	else
		send_ack(t, t->snd_nxt);
}

static void take_syn(struct tcp *t, const struct view *v)
{
	if (t->state == TCP_IDLE && !(v->flags & F_ACK)) {
		t->irs = v->seq;
		t->rcv_nxt = v->seq + 1;
		t->iss = sim_random(t->sim, 0);
		t->snd_una = t->iss;
		t->snd_nxt = t->snd_max = t->iss + 1;
		t->cwnd = CWND;
		t->state = TCP_ANSWERING;
	} else if (t->state == TCP_OPENING && v->flags & F_ACK && v->ack == t->iss + 1) {
		t->irs = v->seq;
		t->rcv_nxt = v->seq + 1;
		t->snd_una = v->ack;
		t->state = TCP_OPEN;
		t->rto_at = t->backoff = 0;
	} else {
		if (t->state == TCP_OPEN)
			send_ack(t, t->snd_nxt);
		return;
	}
	t->window = v->window;
	t->shift_in = v->has_scale ? v->scale : 0;
	t->shift_out = v->has_scale ? t->shift_out : 0;
	t->timestamps &= v->has_ts;
	t->sack &= v->sack_ok;
	t->ts_recent = v->tsval;
	t->mss = v->mss < t->mss ? v->mss : t->mss;
	if (t->state == TCP_ANSWERING)
		send_syn(t);
	else
		send_ack(t, t->snd_nxt);
	output(t);
}

void tcp_receive(struct tcp *t, const struct packet *p)
{
	struct view v;

	if (view_read(p, &v) || v.control || v.told) {
		sim_wrong(t->sim, "host %d was given a segment that it must not see", t->host);
		return;
	}
	if (v.flags & F_RST) {
		sim_wrong(t->sim, "host %d was reset", t->host);
		return;
	}
	if (v.flags & F_SYN) {
		take_syn(t, &v);
		return;
	}
	if (t->state == TCP_IDLE || t->state == TCP_OPENING)
		return;
	if (t->timestamps && v.has_ts && after(t->ts_recent, v.tsval)) {
		t->sim->outcome.paws++;
		send_ack(t, t->snd_nxt);
		return;
	}
	if (t->timestamps && v.has_ts && !after(v.seq, t->last_ack_sent))
		t->ts_recent = v.tsval;
	if (t->state == TCP_ANSWERING) {
		if (!(v.flags & F_ACK) || v.ack == t->iss)
			return;
		t->state = TCP_OPEN;
		t->rto_at = t->backoff = 0;
	}
	if (v.flags & F_ACK && !take_ack(t, &v))
		return;
	take_data(t, p, &v);
	output(t);
}

void tcp_timer(struct tcp *t)
{
	usec now = t->sim->now;

	if (t->ack_at && t->ack_at <= now)
		send_ack(t, t->snd_nxt);
	if (!t->rto_at || t->rto_at > now)
		return;
	t->sim->outcome.timeouts++;
	t->backoff = t->backoff < 6 ? t->backoff + 1 : 6;
	if (t->state != TCP_OPEN) {
		send_syn(t);
		return;
	}
	t->rto_at = now + (RTO_US << t->backoff);
	t->cwnd = 2;
	if (t->window == 0) {
		if (t->snd_max == t->snd_una)
			send_ack(t, t->snd_una - 1); /* a probe */
		else
			send_again(t);
		return;
	}
	t->snd_nxt = t->snd_una;
	t->rto_at = 0;
	output(t);
}

/* The application takes what is there; the sender is told if it has had reason to wait. */
void tcp_read(struct tcp *t)
{
	int closed = room_of(t) < 2 * t->mss;

	t->read = t->rcv_nxt - t->irs - 1;
	if (closed && t->state == TCP_OPEN)
		send_ack(t, t->snd_nxt);
}

int tcp_closed(const struct tcp *t) { return t->fin_seen && t->fin_sent && t->snd_una == t->iss + 2 + t->total; }
