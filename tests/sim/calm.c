/* SPDX-License-Identifier: Apache-2.0 */
/* One reconfiguration of a session after the other, each repeated until it is done, so that it is known what must come of it:
 * the chain that was asked for, in the agents' tables and in the way that segments take. */
#include <string.h>

#include "sim.h"

enum { PATIENCE_US = 60000000 };

static uint32_t boxes_in(const int *chain, int n)
{
	uint32_t set = 0;

	for (int i = 1; i < n - 1; i++)
		set |= 1u << chain[i];
	return set;
}

void calm_start(struct sim *s)
{
	if (s->scenario.bytes[0] < 2)
		return; /* nothing to hold back */
	for (uint32_t i = 0; i < s->scenario.sessions; i++) {
		struct calm *c = &s->calm[i];
		int n = 0;
		for (uint32_t box = 0; box <= s->scenario.chain; box++)
			c->chain[n++] = (int)box;
		c->chain[n++] = s->hosts - 1;
		c->length = n;
		c->boxes = c->next_boxes = c->last_boxes = boxes_in(c->chain, n);
		c->left = (s->scenario.reconfigurations + s->scenario.sessions - 1) / s->scenario.sessions;
		c->next_at = 20000;
		c->first = 1;
		s->end[2 * i].held = s->end[2 * i + 1].held = 1;
	}
}

/* What the agents say is what was asked for. */
static void chain_judge(struct sim *s, const struct calm *c, u64 nonce)
{
	u64 nonces[SIM_HOSTS];
	int chain[SIM_HOSTS], n = chain_of(s, (uint32_t)(c - s->calm), chain, nonces);

	if (n != c->length || memcmp(chain, c->chain, (size_t)n * sizeof(*chain)))
		sim_wrong(s, "session %08x has a chain of %d hosts, not the %d that were asked for", (u32)nonce, n, c->length);
}

/* The left anchor's list begins with what was asked for. */
static void list_judge(struct sim *s, const struct calm *c, u64 nonce)
{
	const struct session *session = agent_session(s->agent[c->anchor], nonce);

	if (!session)
		return;
	uint32_t rest = 0, wrong = session->chain_length < c->command.chain_length ||
				   memcmp(session->chain, c->command.chain, 4 * c->command.chain_length);
	while (c->chain[rest] != c->anchor)
		rest++;
	/* of what lies further right it knows what it was told at set-up: right, if this is the first */
	for (uint32_t i = 0; c->first && i < session->chain_length; i++)
		wrong |= i + rest + 2 >= (uint32_t)c->length || session->chain[i] != s->address[c->chain[rest + 1 + i]];
	if (wrong)
		sim_wrong(s, "host %d lists another chain for session %08x", c->anchor, (u32)nonce);
}

static void begin(struct sim *s, struct calm *c)
{
	int left, right, n = 0;

	c->command = (struct command){};
	if (!draw_change(s, (uint32_t)(c - s->calm), c->chain, c->length, &left, &right, &c->command)) {
		c->left--;
		return;
	}
	for (int i = 0; i <= left; i++)
		c->next_chain[n++] = c->chain[i];
	for (u32 i = 0; i < c->command.chain_length; i++)
		for (int box = 0; box < s->hosts; box++)
			if (s->address[box] == c->command.chain[i])
				c->next_chain[n++] = box;
	for (int i = right; i < c->length; i++)
		c->next_chain[n++] = c->chain[i];
	c->next_length = n;
	c->next_boxes = boxes_in(c->next_chain, n);
	c->anchor = c->chain[left];
	c->under_way = 1;
	c->result = PENDING;
	c->asked_at = s->now;
}

static void ended(struct sim *s, struct calm *c, u64 nonce)
{
	if (c->result == CANCELLED && sim_lossless(s))
		sim_wrong(s, "a reconfiguration was cancelled in a network that loses nothing");
	if (c->result == REFUSED && sim_lossless(s))
		sim_wrong(s, "a reconfiguration was refused though no other was under way");
	if (c->result == DONE) {
		memcpy(c->chain, c->next_chain, sizeof(c->chain));
		c->length = c->next_length;
		c->last_boxes = c->boxes; /* some is still under way */
		c->boxes = c->next_boxes;
		c->under_way = 0;
		c->left--;
		list_judge(s, c, nonce);
		c->first = 0;
		chain_judge(s, c, nonce);
	}
	/* A deaf middlebox stays deaf.  And the core may refuse for ever: an attempt whose cancel has got lost leaves a record at
	 * its right anchor. */
	if (c->result == CANCELLED && s->scenario.deaf)
		c->left--, c->under_way = 0; /* another may be done; locks that were left behind must not be in its way for long */
	if (c->result == BUSY && !sim_lossless(s) && s->now - c->asked_at > PATIENCE_US)
		c->left = c->under_way = 0;
	c->result = PENDING;
	c->next_at = s->now + sim_random(s, sim_random(s, 3) ? 60000 : 500);
}

static void session_tick(struct sim *s, uint32_t i)
{
	struct calm *c = &s->calm[i];
	struct tcp *t = &s->end[2 * i];
	u64 nonce = nonce_of(s, t);

	if (c->result != PENDING)
		ended(s, c, nonce);
	/* where ports are few a middlebox that has left may have forgotten the session before the left anchor was told */
	if (s->scenario.ports && c->under_way && s->now - c->asked_at > PATIENCE_US)
		c->left = c->under_way = 0, c->next_at = s->now;
	if (!c->length || s->now < c->next_at || !tcp_warm(t))
		return;
	if (!c->left) {
		t->held = s->end[2 * i + 1].held = 0;
		return;
	}
	if (!c->under_way) {
		chain_judge(s, c, nonce);
		begin(s, c);
	}
	if (c->under_way && lead_start(s, c->anchor, nonce, &c->command, &c->result) == 0)
		c->next_at = ~(usec)0; /* until it has ended */
}

void calm_bypassed(struct sim *s, u64 nonce)
{
	if (sim_lossless(s))
		sim_wrong(s, "a session went without a chain though all agents are there");
	for (uint32_t i = 0; i < s->scenario.sessions; i++)
		if (nonce_of(s, &s->end[2 * i]) == nonce)
			s->calm[i] = (struct calm){}, s->end[2 * i].held = s->end[2 * i + 1].held = 0;
}

void calm_tick(struct sim *s)
{
	for (uint32_t i = 0; i < s->scenario.sessions; i++)
		session_tick(s, i);
}

void calm_judge(struct sim *s, uint32_t session, uint32_t boxes)
{
	const struct calm *c = &s->calm[session];

	if (s->scenario.calm && c->length && boxes != c->boxes && boxes != c->next_boxes && boxes != c->last_boxes)
		sim_wrong(s, "a segment of session %u has come by middleboxes %x, not %x", session, boxes, c->boxes);
}
