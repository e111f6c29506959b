/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a scenario: hosts 0 (client) to n-1 (server) and between them middleboxes that forward. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { TICK_US = 1000, SERVER_PORT = 5001, LIMIT_US = 300000000, SETTLE_US = 5000000 };

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

/* ---- reconfigurations ---- */

int chain_of(struct sim *s, u64 nonce, int *chain)
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

u64 nonce_of(struct sim *s, const struct tcp *t)
{
	struct five_tuple key = { t->address, t->peer, t->port, t->peer_port };
	return agent_nonce(s->agent[t->host], &key);
}

/* A random segment of a chain gets random middleboxes that are not on it; 0: that would change nothing. */
int draw_change(struct sim *s, const int *chain, int n, int *left, int *right, struct command *c)
{
	uint32_t wanted;

	*left = (int)sim_random(s, (uint32_t)n - 1);
	*right = *left + 1 + (int)sim_random(s, (uint32_t)(n - *left - 1));
	wanted = sim_random(s, s->scenario.calm ? 4 : 3);
	for (int tries = 0; tries < 8 && c->chain_length < wanted; tries++) {
		int box = 1 + (int)sim_random(s, s->scenario.middleboxes), taken = 0;
		if (!s->scenario.middleboxes)
			break;
		for (int i = 0; i < n; i++)
			taken |= chain[i] == box;
		for (u32 i = 0; i < c->chain_length; i++)
			taken |= c->chain[i] == s->address[box];
		if (!taken)
			c->chain[c->chain_length++] = s->address[box];
	}
	c->right_anchor = s->address[chain[*right]];
	return *right > *left + 1 || c->chain_length;
}

static void reconfigure_something(struct sim *s)
{
	struct tcp *t = &s->end[2 * sim_random(s, s->scenario.sessions)];
	u64 nonce = nonce_of(s, t);
	int chain[SIM_HOSTS], n = nonce ? chain_of(s, nonce, chain) : 0, left, right;
	struct command c = {};

	if (n < 2 || t->state != TCP_OPEN || !draw_change(s, chain, n, &left, &right, &c))
		return;
	if (!tcp_warm(t))
		t[0].edge_unknown = t[1].edge_unknown = 1;
	lead_start(s, chain[left], nonce, &c, 0);
}

/* ---- the run ---- */

static void host_start(struct sim *s, int i)
{
	uint8_t address[4] = { 10, 0, 0, (uint8_t)(i + 1) };

	memcpy(&s->address[i], address, 4);
	s->agent[i] = agent_new(s->address[i], sim_random(s, 0));
	agent_set_time(s->agent[i], 1000000000);
	if (s->scenario.ports)
		agent_config(s->agent[i])->ports = s->scenario.ports;
	if (s->scenario.sign)
		sign_start(s, i);
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
	if (c->slow)
		t->own_window = 4000 + sim_random(s, 20000);
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
		if (s->scenario.slow && t->state == TCP_OPEN && !sim_random(s, 20))
			tcp_read(t);
		if (t->state == TCP_OPEN && t->available < t->total && !sim_random(s, 8))
			tcp_write(t, 1 + sim_random(s, t->mss * 6));
		else if (t->state == TCP_OPEN && t->available == t->total && !t->fin_sent)
			tcp_write(t, 0);
	}
	lead_timer(s);
	if (s->scenario.calm)
		calm_tick(s);
	else if (*left && s->now >= *next_change) {
		--*left;
		reconfigure_something(s);
		*next_change = s->now + sim_random(s, sim_random(s, 3) ? 60000 : 500);
	}
}

static void tables_empty(struct sim *s)
{
	struct command c = { .kind = COMMAND_EXPIRE, .linger_ns = 60000000000u, .idle_ns = 30000000000u };

	for (int turn = 0; turn < 5; turn++) {
		sim_set_time(s, s->now + 40000000);
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
	for (int i = 0; sim_events && i < s->hosts; i++)
		lead_events(s, i); /* what nobody has asked for since */
	s->outcome.unfinished += lead_pending(s) - s->forgets;
	sim_network_free(s);
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
	policies_start(s);
	for (uint32_t i = 0; i < scenario->sessions; i++) {
		end_start(s, i, 0);
		end_start(s, i, 1);
		tcp_open(&s->end[2 * i]);
	}
	if (scenario->calm)
		calm_start(s);
	while (!s->outcome.wrong[0] && (!closed_at || s->now < closed_at + SETTLE_US)) {
		tick(s, &left, &next_change);
		sim_run_until(s, s->now + TICK_US);
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
