/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a scenario: hosts 0 (client) to n-1 (server) and between them middleboxes that forward. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { TICK_US = 1000, LIMIT_US = 300000000, SETTLE_US = 5000000 };

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

int host_at(const struct sim *s, be32 address)
{
	for (int i = 0; i < s->hosts; i++)
		if (s->address[i] == address || (s->second[i] && s->second[i] == address))
			return i;
	return -1;
}

/* Clients and servers, and then the ends of proxies. */
uint32_t ends_of(const struct sim *s) { return (s->scenario.proxy ? 4 : 2) * s->scenario.sessions; }

/* The session at a host to which a subsession leads: by the nonce that its sender uses, or, if a proxy was between them once,
 * by the other one. */
static const struct session *next_session(struct sim *s, uint32_t session, int at, const struct five_tuple *sub, u64 *nonce)
{
	const struct proxy *p = &s->proxy[session];
	const u64 known[] = { *nonce, p->nonce, p->peer };

	for (int i = 0; i < 3; i++) {
		const struct session *found = known[i] ? agent_session(s->agent[at], known[i]) : 0;
		if (found && !memcmp(&found->left_sub, sub, sizeof(*sub))) {
			*nonce = known[i];
			return found;
		}
	}
	return 0;
}

int chain_of(struct sim *s, uint32_t session, int *chain, u64 *nonce)
{
	int n = 0, at = 0;
	u64 own = nonce_of(s, &s->end[2 * session]);
	const struct session *here = own ? agent_session(s->agent[0], own) : 0;

	while (here && !here->over_ns && n < SIM_HOSTS) {
		if (here->flags & SESSION_LAST && here->flags & SESSION_SPLICED) {
			own = here->peer;
			here = agent_session(s->agent[at], own);
			continue;
		}
		chain[n] = at;
		nonce[n++] = own;
		if (here->flags & SESSION_LAST)
			return n;
		at = host_at(s, here->right_sub.dst);
		if (at < 0)
			return 0;
		here = next_session(s, session, at, &here->right_sub, &own);
	}
	return 0;
}

u64 nonce_of(const struct sim *s, const struct tcp *t)
{
	struct five_tuple key = { t->address, t->peer, t->port, t->peer_port };
	return agent_nonce(s->agent[t->host], &key);
}

/* A host that cannot be brought into a session: one that is in it, the server of half of it, or a NAT that stands in for its client. */
static int barred(const struct sim *s, uint32_t session, int box)
{
	const struct proxy *p = &s->proxy[session];
	u64 beyond = p->inner ? nonce_of(s, p->outer) : 0;

	if (beyond && agent_session(s->agent[box], beyond))
		return 1; /* it is in the other half already */
	return (box == (int)s->scenario.proxy && s->proxy[session].inner) || (box == (int)s->scenario.nat && nat_knows(s, session));
}

/* A random segment of a chain gets random middleboxes that are not on it; 0: that would change nothing. */
int draw_change(struct sim *s, uint32_t session, const int *chain, int n, int *left, int *right, struct command *c)
{
	uint32_t wanted;

	*left = (int)sim_random(s, (uint32_t)n - 1);
	*right = *left + 1 + (int)sim_random(s, (uint32_t)(n - *left - 1));
	wanted = sim_random(s, s->scenario.calm ? 4 : 3);
	for (int tries = 0; tries < 8 && c->chain_length < wanted; tries++) {
		int box = 1 + (int)sim_random(s, s->scenario.middleboxes), taken = barred(s, session, box);
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
	uint32_t session = sim_random(s, s->scenario.sessions);
	struct tcp *t = &s->end[2 * session];
	u64 nonce[SIM_HOSTS];
	int chain[SIM_HOSTS], n = chain_of(s, session, chain, nonce), left, right;
	struct command c = {};

	if (n < 2 || t->state != TCP_OPEN || !draw_change(s, session, chain, n, &left, &right, &c) || sim_dead(s, chain[left]))
		return;
	if (!tcp_warm(t))
		t[0].edge_unknown = t[1].edge_unknown = 1;
	lead_start(s, chain[left], nonce[left], &c, 0);
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
	if (s->scenario.moves && (i == 0 || i == s->hosts - 1)) {
		struct config *config = agent_config(s->agent[i]);
		address[2] = 1;
		memcpy(&s->second[i], address, 4);
		config->interfaces[config->interface_count++] = (struct interface){ 2, s->second[i] };
	}
}

static void end_start(struct sim *s, uint32_t session, int side)
{
	const struct scenario *c = &s->scenario;
	struct tcp *t = &s->end[2 * session + (uint32_t)side];
	int other = side ? 0 : s->hosts - 1;

	*t = (struct tcp){ .sim = s, .host = side ? s->hosts - 1 : 0, .other = (int)(2 * session) + !side,
			  .beyond = -1, .listens = side ? session + 1 : 0 };
	t->address = s->address[t->host];
	t->peer = s->address[other];
	uint32_t own = side ? SERVER_PORT : CLIENT_PORT + session, far = side ? CLIENT_PORT + session : SERVER_PORT;
	t->port = be16_of(own);
	t->peer_port = be16_of(far);
	t->total = c->bytes[side];
	t->peer_total = c->bytes[!side];
	t->out.stream = (uint64_t)c->seed << 20 | session << 1 | (uint32_t)side;
	t->in.stream = (uint64_t)c->seed << 20 | session << 1 | (uint32_t)!side;
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

/* A host is gone: who cannot do without it has lost its session. */
static void die(struct sim *s)
{
	for (uint32_t i = 0; i < s->scenario.sessions; i++) {
		const struct proxy *p = &s->proxy[i];
		const u64 nonce[] = { nonce_of(s, &s->end[2 * i]), p->inner ? nonce_of(s, p->outer) : 0, p->peer };
		for (int k = 0; k < 3 && !s->end[2 * i].lost; k++) {
			const struct session *session = nonce[k] ? agent_session(s->agent[s->scenario.dies], nonce[k]) : 0;
			int needed = (session && !(session->flags & (SESSION_LEFT_CHAIN | SESSION_RST))) || (p->inner && !p->left && s->scenario.dies == s->scenario.proxy);
			s->end[2 * i].lost = s->end[2 * i + 1].lost = (uint32_t)needed;
		}
		if (s->end[2 * i].lost && p->inner)
			p->inner->lost = p->outer->lost = 1;
		for (int k = 0; k < 3 && s->end[2 * i].lost; k++)
			lead_note(s, (int)s->scenario.dies, EVENT_SESSION_LOST, nonce[k], 0);
		s->outcome.lost += s->end[2 * i].lost;
	}
}

static int closed(const struct sim *s, uint32_t i)
{
	return s->end[2 * i].lost || (tcp_closed(&s->end[2 * i]) && tcp_closed(&s->end[2 * i + 1]) && proxies_closed(s, i));
}

static uint32_t one_open(const struct sim *s)
{
	uint32_t i = 0;

	while (i < s->scenario.sessions && closed(s, i))
		i++;
	return i;
}

static int all_closed(struct sim *s)
{
	s->outcome.closed = 0;
	for (uint32_t i = 0; i < s->scenario.sessions; i++)
		s->outcome.closed += (uint32_t)closed(s, i);
	return s->outcome.closed == s->scenario.sessions;
}

/* The path's MTU is another from now on. */
static void resize(struct sim *s, struct tcp *t)
{
	if (s->scenario.resize && t->state == TCP_OPEN && !sim_random(s, 50))
		t->mss = 300 + sim_random(s, t->sim->scenario.mss - 299);
}

/* Applications write now and then, a timer may be due, a reconfiguration may begin. */
static void tick(struct sim *s, uint32_t *left, usec *next_change)
{
	for (uint32_t i = 0; i < ends_of(s); i++) {
		struct tcp *t = &s->end[i];
		if (!t->sim || t->lost || sim_dead(s, t->host))
			continue;
		tcp_timer(t);
		resize(s, t);
		if (t->relays)
			continue;
		if (s->scenario.slow && t->state == TCP_OPEN && !sim_random(s, 20))
			tcp_read(t);
		if (t->state == TCP_OPEN && t->available < t->total && !sim_random(s, 8))
			tcp_write(t, 1 + sim_random(s, t->mss * 6));
		else if (t->state == TCP_OPEN && t->available == t->total && !t->fin_sent)
			tcp_write(t, 0);
	}
	proxies_tick(s);
	lead_timer(s);
	moves_tick(s);
	replay_tick(s);
	if (s->scenario.dies && !s->lost && s->now >= s->dies_at)
		s->lost = 1, die(s);
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
		s->outcome.entries_left += sim_dead(s, i) ? 0 : agent_entries(s->agent[i]);
	for (int i = 0; s->outcome.entries_left && s->scenario.trace && i < s->hosts; i++)
		tables_print(s, i);
	if (s->outcome.entries_left)
		sim_wrong(s, "%u entries are left in the tables", s->outcome.entries_left);
}

static void finish(struct sim *s)
{
	s->outcome.virtual_us = s->now;
	replay_free(s);
	firewall_free(s);
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
	s->moves_left = scenario->moves;
	s->replays_left = scenario->replays;
	s->dies_at = 20000 + (scenario->dies ? sim_random(s, 300000) : 0);
	s->next_move = 20000;
	s->lead_lowest = SIM_LEADS;
	for (int i = 0; i < s->hosts; i++)
		host_start(s, i);
	policies_start(s);
	for (uint32_t i = 0; i < scenario->sessions; i++) {
		end_start(s, i, 0);
		end_start(s, i, 1);
	}
	proxies_start(s);
	for (uint32_t i = 0; i < scenario->sessions; i++)
		tcp_open(&s->end[2 * i]);
	if (scenario->calm)
		calm_start(s);
	while (!s->outcome.wrong[0] && (!closed_at || s->now < closed_at + SETTLE_US)) {
		tick(s, &left, &next_change);
		sim_run_until(s, s->now + TICK_US);
		if (!closed_at && all_closed(s))
			closed_at = s->now;
		if (s->now > LIMIT_US)
			sim_wrong(s, "%u of %u sessions have not ended, one from port %u", s->scenario.sessions - s->outcome.closed,
				  s->scenario.sessions, CLIENT_PORT + one_open(s));
	}
	s->outcome.moved = moves_done(s);
	if (!s->outcome.wrong[0])
		tables_empty(s);
	finish(s);
	*outcome = s->outcome;
	free(s);
	return outcome->wrong[0] != 0;
}
