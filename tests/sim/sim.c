/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a scenario: hosts 0 (client) to n-1 (server) and between them middleboxes that forward. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { TICK_US = 1000, SERVER_PORT = 5001, LIMIT_US = 300000000, SETTLE_US = 5000000 };
static const usec NS = 1000;

uint32_t sim_random(struct sim *s, uint32_t below)
{
	s->random = s->random * 6364136223846793005u + 1442695040888963407u;
	uint32_t r = (uint32_t)(s->random >> 32);
	return below ? (uint32_t)((uint64_t)r * below >> 32) : r;
}

void sim_wrong(struct sim *s, const char *format, ...)
{
	va_list arguments;

	if (s->outcome.wrong[0])
		return;
	int n = snprintf(s->outcome.wrong, SIM_TEXT, "at %.3f ms: ", (double)s->now / 1000);
	va_start(arguments, format);
	vsnprintf(s->outcome.wrong + n, SIM_TEXT - (size_t)n, format, arguments);
	va_end(arguments);
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
	return p;
}

void sim_recycle(struct sim *s, struct packet *p)
{
	memcpy(p->data, &s->pool, sizeof(s->pool));
	s->pool = p;
}

static struct packet *sim_copy(struct sim *s, const struct packet *p)
{
	struct packet *copy = sim_packet(s);

	memcpy(copy, p, offsetof(struct packet, data) + p->length);
	return copy;
}

static void trace(struct sim *s, const char *where, int host, const struct packet *p)
{
	struct view v;

	if (!s->scenario.trace || view_read(p, &v))
		return;
	printf("%11.3f %-5s %2d  %u.%u > %u.%u  %c%c%c%c seq %u +%u ack %u win %u ts %u/%u", (double)s->now / 1000, where, host,
	       v.src & 255, v.sport, v.dst & 255, v.dport, v.control ? 'C' : '-', v.flags & F_SYN ? 'S' : '-',
	       v.flags & F_FIN ? 'F' : '-', v.flags & F_RST ? 'R' : '-', v.seq, v.payload, v.ack, v.window, v.tsval, v.tsecr);
	for (uint32_t i = 0; i < v.sacks; i++)
		printf(" sack %u-%u", v.sack[i].from, v.sack[i].to);
	puts("");
}

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

static void set_time(struct sim *s, usec now)
{
	s->now = now;
	for (int i = 0; i < s->hosts; i++)
		agent_set_time(s->agent[i], 1000000000 + now * NS);
}

/* ---- the network ---- */

static int is_end(const struct sim *s, int host) { return host == 0 || host == s->hosts - 1; }

static int host_of(const struct sim *s, const struct packet *p)
{
	be32 to;

	memcpy(&to, p->data + IP_AT + 16, 4);
	for (int i = 0; i < s->hosts; i++)
		if (s->address[i] == to)
			return i;
	return -1;
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
	s->outcome.packets++;
	trace(s, "wire", host, p);
	oracle_wire(s, p, is_end(s, host));
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

static void passed(struct sim *s, int host, struct packet *p, enum way way, int leaving)
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
	passed(s, host, p, agent_egress(s->agent[host], p), 1);
}

/* The local stack: an end point's socket, or a middlebox that forwards. */
static void into_host(struct sim *s, int host, struct packet *p)
{
	trace(s, "in", host, p);
	if (!is_end(s, host)) {
		if (host_of(s, p) != host)
			sim_host_sends(s, host, p);
		else if (!(p->data[TCP_AT + 13] & F_RST)) /* a stack ignores a reset for nobody, and resets all else */
			sim_wrong(s, "middlebox %d was given a packet for itself", host);
		else
			sim_recycle(s, p);
		return;
	}
	if (!oracle_checksum(p))
		sim_wrong(s, "host %d was given a wrong checksum", host);
	be16 port[2];
	memcpy(port, p->data + TCP_AT, 4);
	for (uint32_t i = 0; i < 2 * s->scenario.sessions; i++) {
		struct tcp *t = &s->end[i];
		be32 from;
		memcpy(&from, p->data + IP_AT + 12, 4);
		if (t->host == host && t->port == port[1] && t->peer_port == port[0] && t->peer == from) {
			tcp_receive(t, p);
			break;
		}
	}
	sim_recycle(s, p);
}

/* ---- reconfigurations ---- */

/* The hosts of a session's chain, from the client on, as the agents know them. */
static int chain_of(struct sim *s, u64 nonce, int *chain)
{
	int n = 0, at = 0;

	while (n < SIM_HOSTS) {
		const struct session *session = agent_session(s->agent[at], nonce);
		if (!session || session->over_ns)
			return 0;
		chain[n++] = at;
		if (session->flags & SESSION_LAST)
			return n;
		int next = -1;
		for (int i = 0; i < s->hosts; i++)
			if (s->address[i] == session->right_sub.dst)
				next = i;
		if (next < 0)
			return 0;
		at = next;
	}
	return 0;
}

static u64 nonce_of(struct sim *s, const struct tcp *t)
{
	struct five_tuple key = { t->address, t->peer, t->port, t->peer_port };
	return agent_nonce(s->agent[t->host], &key);
}

/* A random segment of a random session's chain gets random middleboxes that are not on it. */
static void reconfigure_something(struct sim *s)
{
	struct tcp *t = &s->end[2 * sim_random(s, s->scenario.sessions)];
	u64 nonce = nonce_of(s, t);
	int chain[SIM_HOSTS], n = nonce ? chain_of(s, nonce, chain) : 0;
	struct command c = {};

	if (n < 2 || t->state != TCP_OPEN)
		return;
	int left = (int)sim_random(s, (uint32_t)n - 1), right = left + 1 + (int)sim_random(s, (uint32_t)(n - left - 1));
	uint32_t wanted = sim_random(s, 3);
	for (int tries = 0; tries < 8 && c.chain_length < wanted; tries++) {
		int box = 1 + (int)sim_random(s, s->scenario.middleboxes), taken = 0;
		if (!s->scenario.middleboxes)
			break;
		for (int i = 0; i < n; i++)
			taken |= chain[i] == box;
		for (u32 i = 0; i < c.chain_length; i++)
			taken |= c.chain[i] == s->address[box];
		if (!taken)
			c.chain[c.chain_length++] = s->address[box];
	}
	if (right == left + 1 && !c.chain_length)
		return;
	c.right_anchor = s->address[chain[right]];
	lead_start(s, chain[left], nonce, &c);
}

/* ---- the run ---- */

static void host_start(struct sim *s, int i)
{
	uint8_t address[4] = { 10, 0, 0, (uint8_t)(i + 1) };

	memcpy(&s->address[i], address, 4);
	s->agent[i] = agent_new(s->address[i], sim_random(s, 0));
	agent_config(s->agent[i])->idle_ns = 30000000000u;
	agent_set_time(s->agent[i], 1000000000);
}

/* One policy at the client: every SYN (a filter that says yes) goes through the first middleboxes. */
static void policy_start(struct sim *s)
{
	struct policy *p = agent_policy(s->agent[0], 0);

	*p = (struct policy){ .id = 1, .insns = 1, .chain_length = s->scenario.chain, .on_no_agent = 1, .filter = { { 6, 0, 0, 1 } } };
	for (uint32_t i = 0; i < s->scenario.chain; i++)
		p->chain[i] = s->address[1 + i];
	agent_config(s->agent[0])->policy_slots = 1;
}

static void end_start(struct sim *s, uint32_t session, int side)
{
	const struct scenario *c = &s->scenario;
	struct tcp *t = &s->end[2 * session + (uint32_t)side];
	int other = side ? 0 : s->hosts - 1;

	*t = (struct tcp){ .sim = s, .host = side ? s->hosts - 1 : 0, .other = (int)(2 * session) + !side };
	t->address = s->address[t->host];
	t->peer = s->address[other];
	uint32_t own = side ? SERVER_PORT : 40000 + session, far = side ? 40000 + session : SERVER_PORT;
	t->port = be16_of(own);
	t->peer_port = be16_of(far);
	t->total = c->bytes[side];
	t->peer_total = c->bytes[!side];
	t->stream = (uint64_t)c->seed << 20 | session << 1 | (uint32_t)side;
	t->peer_stream = (uint64_t)c->seed << 20 | session << 1 | (uint32_t)!side;
	t->mss = c->mss;
	t->shift_out = c->window_shift[side];
	t->own_window = (60000 + sim_random(s, 5000)) << (t->shift_out ? 1 : 0);
	t->timestamps = c->timestamps;
	t->sack = c->sack;
	t->ts_offset = sim_random(s, 0);
	t->window = 1000;
}

static int all_closed(struct sim *s)
{
	s->outcome.closed = 0;
	for (uint32_t i = 0; i < s->scenario.sessions; i++)
		s->outcome.closed += tcp_closed(&s->end[2 * i]) && tcp_closed(&s->end[2 * i + 1]);
	return s->outcome.closed == s->scenario.sessions;
}

/* Applications write now and then, a timer may be due, a reconfiguration may begin. */
static void tick(struct sim *s, uint32_t *left, usec *next_change)
{
	for (uint32_t i = 0; i < 2 * s->scenario.sessions; i++) {
		struct tcp *t = &s->end[i];
		tcp_timer(t);
		if (t->state == TCP_OPEN && t->available < t->total && !sim_random(s, 8))
			tcp_write(t, 1 + sim_random(s, t->mss * 6));
		else if (t->state == TCP_OPEN && t->available == t->total && !t->fin_sent)
			tcp_write(t, 0);
	}
	lead_timer(s);
	if (*left && s->now >= *next_change) {
		--*left;
		reconfigure_something(s);
		*next_change = s->now + sim_random(s, sim_random(s, 3) ? 60000 : 500);
	}
}

static int is_syn_ack(const struct packet *p)
{
	struct view v;

	return !view_read(p, &v) && !v.control && (v.flags & (F_SYN | F_ACK)) == (F_SYN | F_ACK);
}

static void events_until(struct sim *s, usec until)
{
	while (s->heap_count && s->heap[0].at <= until && !s->outcome.wrong[0]) {
		struct event_at e = next_event(s);
		set_time(s, e.at);
		trace(s, "recv", e.host, e.packet);
		if (s->scenario.deaf && e.host == (int)s->scenario.deaf && is_syn_ack(e.packet)) {
			sim_recycle(s, e.packet);
			continue;
		}
		passed(s, e.host, e.packet, agent_ingress(s->agent[e.host], e.packet), 0);
	}
	set_time(s, until);
}

static void tables_empty(struct sim *s)
{
	struct command c = { .kind = COMMAND_EXPIRE, .side = 1 };

	for (int turn = 0; turn < 5; turn++) {
		set_time(s, s->now + 40000000);
		for (int i = 0; i < s->hosts; i++)
			agent_command(s->agent[i], &c);
	}
	for (int i = 0; i < s->hosts; i++)
		s->outcome.entries_left += agent_entries(s->agent[i]);
	if (s->outcome.entries_left)
		sim_wrong(s, "%u entries are left in the tables", s->outcome.entries_left);
}

static void finish(struct sim *s)
{
	s->outcome.virtual_us = s->now;
	s->outcome.unfinished += lead_pending(s) - s->forgets;
	for (uint32_t i = 0; i < s->heap_count; i++)
		free(s->heap[i].packet);
	free(s->heap);
	while (s->pool)
		free(sim_packet(s));
	for (int i = 0; i < s->hosts; i++)
		agent_free(s->agent[i]);
}

int sim_run(const struct scenario *scenario, struct outcome *outcome)
{
	struct sim *s = calloc(1, sizeof(*s));
	uint32_t left = scenario->reconfigurations;
	usec next_change = 20000, closed_at = 0;

	s->scenario = *scenario;
	s->random = scenario->seed * 0x9e3779b97f4a7c15u + 1;
	s->hosts = 2 + (int)scenario->middleboxes;
	for (int i = 0; i < s->hosts; i++)
		host_start(s, i);
	policy_start(s);
	for (uint32_t i = 0; i < scenario->sessions; i++) {
		end_start(s, i, 0);
		end_start(s, i, 1);
		tcp_open(&s->end[2 * i]);
	}
	while (!s->outcome.wrong[0] && (!closed_at || s->now < closed_at + SETTLE_US)) {
		tick(s, &left, &next_change);
		events_until(s, s->now + TICK_US);
		if (!closed_at && all_closed(s))
			closed_at = s->now;
		if (s->now > LIMIT_US)
			sim_wrong(s, "%u of %u sessions have not ended", s->scenario.sessions - s->outcome.closed, s->scenario.sessions);
	}
	if (!s->outcome.wrong[0])
		tables_empty(s);
	finish(s);
	*outcome = s->outcome;
	free(s);
	return outcome->wrong[0] != 0;
}
