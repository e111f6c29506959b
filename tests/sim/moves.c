/* SPDX-License-Identifier: Apache-2.0 */
/* End hosts that move (docs/protocol.md 4.8): their sessions get new paths from or to their other address. */
#include "sim.h"

/* The address that a session uses on the wire at one of its ends. */
static be32 used(const struct session *session, int side) { return side ? session->left_sub.dst : session->right_sub.src; }

static int is_end_here(const struct session *session, int side)
{
	return session && !session->over_ns && (side ? session->left_sub.dport : session->right_sub.dport);
}

static void move(struct sim *s)
{
	int side = (int)sim_random(s, 2);
	struct tcp *t = &s->end[2 * sim_random(s, s->scenario.sessions) + (uint32_t)side];
	u64 nonce = nonce_of(s, t);
	const struct session *session = nonce ? agent_session(s->agent[t->host], nonce) : 0;

	if (!is_end_here(session, side) || !tcp_warm(t))
		return;
	struct command c = { .kind = COMMAND_MOVE, .nonce = nonce };
	c.tuple.src = used(session, side) == s->address[t->host] ? s->second[t->host] : s->address[t->host];
	if (agent_command(s->agent[t->host], &c))
		return;
	if (side) {
		c = (struct command){ .kind = COMMAND_TRIGGER, .nonce = nonce, .txid = lead_txid(s, t->host, nonce) };
		agent_command(s->agent[t->host], &c);
		sim_outbox(s, t->host);
	} else {
		c = (struct command){ .right_anchor = session->right_sub.dst };
		lead_start(s, t->host, nonce, &c, 0);
	}
}

void moves_tick(struct sim *s)
{
	if (!s->moves_left || s->now < s->next_move)
		return;
	s->moves_left--;
	s->next_move = s->now + sim_random(s, 80000);
	move(s);
}

/* Ends that are elsewhere now. */
uint32_t moves_done(struct sim *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; s->scenario.moves && i < 2 * s->scenario.sessions; i++) {
		const struct tcp *t = &s->end[i];
		const struct session *session = agent_session(s->agent[t->host], nonce_of(s, t));
		n += session && used(session, i & 1) == s->second[t->host];
	}
	return n;
}
