/* SPDX-License-Identifier: Apache-2.0 */
/* The network: packets under way, and the hosts that they reach. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static const usec NS = 1000;

void *sim_recorder;

int sim_record(const char *path)
{
	int failed = sim_recorder && fclose(sim_recorder);

	sim_recorder = path ? fopen(path, "w") : 0;
	return failed || (path && !sim_recorder);
}

/* ---- packets ---- */

struct packet *sim_packet(struct sim *s)
{
	struct packet *p = s->pool;

	if (p)
		memcpy(&s->pool, p->data, sizeof(s->pool));
	else
		p = malloc(sizeof(*p));
	p->gso_size = 0;
	p->tag = 0;
	memset(p->spare, 0, sizeof(p->spare));
	return p;
}

void sim_recycle(struct sim *s, struct packet *p)
{
	memcpy(p->data, &s->pool, sizeof(s->pool));
	s->pool = p;
}

struct packet *sim_copy(struct sim *s, const struct packet *p)
{
	struct packet *copy = sim_packet(s);

	memcpy(copy, p, offsetof(struct packet, data) + p->length);
	return copy;
}

static void trace(struct sim *s, const char *where, int host, const struct packet *p)
{
	struct view v;

	if ((!s->scenario.trace && !sim_recorder) || view_read(p, &v))
		return;
	struct five_tuple key = { be32_of(v.src), be32_of(v.dst), be16_of(v.sport), be16_of(v.dport) };
	if (sim_recorder)
		fprintf(sim_recorder, "%llu,%s,%d,%u,%u,%u,%u,%u,%u,%u,%u,%u,%llx\n", (unsigned long long)s->now, where, host, v.src & 255,
			v.sport, v.dst & 255, v.dport, v.flags, v.seq, v.payload, v.ack, v.control,
			(unsigned long long)agent_nonce(s->agent[host], &key));
	if (!s->scenario.trace)
		return;
	printf("%11.3f %-5s %2d  %u.%u > %u.%u  %c%c%c%c seq %u +%u ack %u win %u ts %u/%u", (double)s->now / 1000, where, host,
	       v.src & 255, v.sport, v.dst & 255, v.dport, v.control ? 'C' : '-', v.flags & F_SYN ? 'S' : '-',
	       v.flags & F_FIN ? 'F' : '-', v.flags & F_RST ? 'R' : '-', v.seq, v.payload, v.ack, v.window, v.tsval, v.tsecr);
	for (uint32_t i = 0; i < v.sacks; i++)
		printf(" sack %u-%u", v.sack[i].from, v.sack[i].to);
	puts("");
}

/* The middleboxes that a packet has passed, kept beside it where the core does not look. */
static uint32_t boxes_of(const struct packet *p) { return get16(p->spare); }
enum { FORGED = 15 };   /* no host's number */
static void box_note(struct packet *p, int host) { put16(p->spare, boxes_of(p) | 1u << host); }

/* ---- time ---- */

static int earlier(const struct event_at *a, const struct event_at *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void schedule(struct sim *s, usec at, int host, struct packet *p)
{
	if (s->heap_count == s->heap_room) {
		s->heap_room = s->heap_room ? 2 * s->heap_room : 1024;
		s->heap = realloc(s->heap, s->heap_room * sizeof(*s->heap));
	}
	struct event_at e = { at, s->order++, host, p };
	uint32_t i = s->heap_count++;
	for (; i && earlier(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = e;
}

static struct event_at next_event(struct sim *s)
{
	struct event_at first = s->heap[0], last = s->heap[--s->heap_count];
	uint32_t i = 0;

	for (;;) {
		uint32_t child = 2 * i + 1;
		if (child >= s->heap_count)
			break;
		if (child + 1 < s->heap_count && earlier(&s->heap[child + 1], &s->heap[child]))
			child++;
		if (!earlier(&s->heap[child], &last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return first;
}

void sim_set_time(struct sim *s, usec now)
{
	s->now = now;
	for (int i = 0; i < s->hosts; i++)
		agent_set_time(s->agent[i], 1000000000 + now * NS);
}

/* ---- the network ---- */

static int is_end(const struct sim *s, int host) { return host == 0 || host == s->hosts - 1; }

static int host_of(const struct sim *s, const struct packet *p)
{
	return host_at(s, be32_at(p->data + IP_AT + 16));
}

static void travel(struct sim *s, struct packet *p)
{
	const struct scenario *c = &s->scenario;
	int to = host_of(s, p);
	usec delay = c->delay_us + (c->jitter_us ? sim_random(s, c->jitter_us) : 0);

	if (to < 0) {
		sim_wrong(s, "a packet was sent to nobody");
		sim_recycle(s, p);
		return;
	}
	if (c->reorder_ppm && sim_random(s, 1000000) < c->reorder_ppm)
		delay += sim_random(s, 4 * c->delay_us + 100);
	if (c->duplicate_ppm && sim_random(s, 1000000) < c->duplicate_ppm)
		schedule(s, s->now + delay + sim_random(s, 2 * c->delay_us + 1), to, sim_copy(s, p));
	if (c->sign && sim_random(s, 20) == 0) {
		struct packet *forged = sim_copy(s, p);
		if (sign_forge(s, forged)) {
			box_note(forged, FORGED);
			schedule(s, s->now + sim_random(s, 2 * c->delay_us + 1), to, forged);
		} else {
			sim_recycle(s, forged);
		}
	}
	if (c->loss_ppm && sim_random(s, 1000000) < c->loss_ppm)
		sim_recycle(s, p);
	else
		schedule(s, s->now + delay, to, p);
}

/* A super-packet becomes wire segments, or stays whole as on a veth. */
static void segment(struct sim *s, struct packet *p)
{
	uint32_t size = p->gso_size, at = TCP_AT + (p->data[TCP_AT + 12] >> 4) * 4u, payload = p->length - at;

	if (!size || payload <= size || sim_random(s, 2)) {
		travel(s, p);
		return;
	}
	for (uint32_t from = 0; from < payload; from += size) {
		uint32_t n = payload - from < size ? payload - from : size;
		struct packet *piece = sim_packet(s);
		memcpy(piece->spare, p->spare, sizeof(p->spare));
		memcpy(piece->data, p->data, at);
		memcpy(piece->data + at, p->data + at + from, n);
		piece->length = at + n;
		put32(piece->data + TCP_AT + 4, get32(p->data + TCP_AT + 4) + from);
		if (from + n < payload)
			piece->data[TCP_AT + 13] &= (uint8_t) ~(F_FIN | F_PSH);
		sim_checksum(piece);
		travel(s, piece);
	}
	sim_recycle(s, p);
}

static void onto_wire(struct sim *s, int host, struct packet *p)
{
	trace(s, "wire", host, p);
	oracle_wire(s, p, is_end(s, host));
	firewall_judge(s, host, AT_LINK, p);
	segment(s, p);
}

static void into_host(struct sim *s, int host, struct packet *p);

void sim_outbox(struct sim *s, int host)
{
	struct packet *list[OUTBOX], *p;
	int n = 0;

	while ((p = agent_sent(s->agent[host])))
		list[n++] = p;
	for (int i = 0; i < n; i++) {
		struct packet *copy = sim_copy(s, list[i]);
		if (list[i]->way == WAY_LOCAL)
			into_host(s, host, copy);
		else
			onto_wire(s, host, copy);
		free(list[i]);
	}
}

void sim_passed(struct sim *s, int host, struct packet *p, enum way way, int leaving)
{
	sim_outbox(s, host);
	lead_events(s, host);
	if (way == WAY_DROPPED)
		sim_recycle(s, p);
	else if (way == WAY_WIRE || (way == WAY_ON && leaving))
		onto_wire(s, host, p);
	else
		into_host(s, host, p);
}

void sim_host_sends(struct sim *s, int host, struct packet *p)
{
	trace(s, "out", host, p);
	sim_passed(s, host, p, agent_egress(s->agent[host], p), 1);
}

/* Whether a SYN makes a server's socket its own: the first, or one of the client itself after one that came by a NAT and whose
 * answer has not been acknowledged.  The session goes without its chain then; a listening socket has a half-open one for each,
 * and forgets the other. */
static int opens(const struct sim *s, const struct tcp *t, const struct packet *p)
{
	const uint8_t *d = p->data;
	const struct tcp *client = &s->end[t->other];
	int own = be32_at(d + IP_AT + 12) == client->address && !memcmp(d + TCP_AT, &client->port, 2);

	if (!t->listens || !(d[TCP_AT + 13] & F_SYN) || nat_session(s, get16(d + TCP_AT)) != (int)t->listens - 1)
		return 0;
	return t->state == TCP_IDLE || (t->state == TCP_ANSWERING && own && t->peer_port != client->port);
}

/* The socket that a segment is for.  One that listens learns who its peer is: a NAT may be between. */
static struct tcp *socket_of(struct sim *s, int host, const struct packet *p)
{
	const uint8_t *d = p->data;
	be32 from = be32_at(d + IP_AT + 12), to = be32_at(d + IP_AT + 16);
	be16 port[2];

	memcpy(port, d + TCP_AT, 4);
	for (uint32_t i = 0; i < ends_of(s); i++) {
		struct tcp *t = &s->end[i];
		if (t->host != host || t->port != port[1] || t->address != to)
			continue;
		if (opens(s, t, p)) {
			t->peer = from, t->peer_port = port[0];
			t->state = TCP_IDLE;
		}
		if (t->peer == from && t->peer_port == port[0])
			return t;
	}
	return 0;
}

/* A middlebox's stack ignores a reset for nobody, and resets all else.  Where ports are few the core gives those of a session
 * that has just ended to the next one, and what is late finds no tombstone any more. */
static void for_nobody(struct sim *s, int host, struct packet *p)
{
	if (!is_end(s, host) && !(p->data[TCP_AT + 13] & F_RST) && !s->scenario.ports)
		sim_wrong(s, "middlebox %d was given a packet for itself", host);
	sim_recycle(s, p);
}

static void forward(struct sim *s, int host, struct packet *p)
{
	int leftward = get16(p->data + TCP_AT) == SERVER_PORT;

	box_note(p, host);
	if (!leftward)
		firewall_judge(s, host, INSIDE, p);
	if (host == (int)s->scenario.nat && !nat_forward(s, host, p)) {
		for_nobody(s, host, p);
		return;
	}
	if (leftward) /* as the session was before a NAT */
		firewall_judge(s, host, INSIDE, p);
	sim_host_sends(s, host, p);
}

/* The local stack: an end point's socket, or a middlebox that forwards. */
static void into_host(struct sim *s, int host, struct packet *p)
{
	trace(s, "in", host, p);
	int translated = host == (int)s->scenario.nat && get16(p->data + TCP_AT) == SERVER_PORT;
	if (!is_end(s, host) && (host_of(s, p) != host || translated)) {
		forward(s, host, p);
		return;
	}
	struct tcp *t = socket_of(s, host, p);
	if (!t) {
		for_nobody(s, host, p);
		return;
	}
	if (!oracle_checksum(p))
		sim_wrong(s, "host %d was given a wrong checksum", host);
	uint32_t end = (uint32_t)(t - s->end);
	if (p->length > TCP_AT + (p->data[TCP_AT + 12] >> 4) * 4u && !t->relays) /* with payload: an end host's own */
		calm_judge(s, end / 2, boxes_of(p));
	tcp_receive(t, p);
	sim_recycle(s, p);
}

static int is_syn_ack(const struct packet *p)
{
	struct view v;

	return !view_read(p, &v) && !v.control && (v.flags & (F_SYN | F_ACK)) == (F_SYN | F_ACK);
}

enum way sim_arrives(struct sim *s, int host, struct packet *p)
{
	trace(s, "recv", host, p);
	return agent_ingress(s->agent[host], p);
}

void sim_run_until(struct sim *s, usec until)
{
	while (s->heap_count && s->heap[0].at <= until && !s->outcome.wrong[0]) {
		struct event_at e = next_event(s);
		sim_set_time(s, e.at);
		if (sim_dead(s, e.host) || (s->scenario.deaf && e.host == (int)s->scenario.deaf && is_syn_ack(e.packet))) {
			sim_recycle(s, e.packet);
			continue;
		}
		s->outcome.packets++;
		int forged = boxes_of(e.packet) >> FORGED;
		if (!forged) {
			firewall_judge(s, e.host, AT_LINK, e.packet);
			replay_record(s, e.host, e.packet);
		}
		enum way way = sim_arrives(s, e.host, e.packet);
		if (forged && way != WAY_DROPPED)
			sim_wrong(s, "host %d has believed a forged message", e.host);
		sim_passed(s, e.host, e.packet, way, 0);
	}
	sim_set_time(s, until);
}

void sim_network_free(struct sim *s)
{
	for (uint32_t i = 0; i < s->heap_count; i++)
		free(s->heap[i].packet);
	free(s->heap);
	while (s->pool)
		free(sim_packet(s));
}
