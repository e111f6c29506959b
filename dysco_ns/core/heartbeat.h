/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Heartbeats: an agent whose session has been silent asks its neighbours whether they have it still.
 *
 * One that has not, or that does not answer HEARTBEATS_LOST times, tells that the session is over here too: a host on
 * its chain has died, or a FIN has passed where this agent could not see it.
 */
#ifndef DYSCO_HEARTBEAT_H
#define DYSCO_HEARTBEAT_H
#include "control.h"

INLINE u32 session_lost(struct session *s, u64 nonce, be32 neighbour, u32 side)
{
	s->over_ns = port_now();
	members_release(s);
	tell(EVENT_SESSION_LOST, nonce, 0, neighbour, side);
	return REFUSED_SESSION_OVER;
}

/* Asks the neighbour on one side. */
INLINE u32 heartbeat_send(struct packet *p, struct scratch *x, struct config *config, struct session *s, u64 nonce, u32 side)
{
	struct control_message *m = control_message(x);

	__builtin_memset(m, 0, sizeof(*m));
	m->header.type = MESSAGE_HEARTBEAT;
	m->header.nonce = known_there(s, side, nonce);
	m->handle = nonce;
	m->txid = be32_of(s->beat);
	m->hops = (u8)side;
	x->control_to = side == SIDE_RIGHT ? control_tuple(config, &s->right_sub) : leftward_tuple(config, &s->left_sub);
	s->unanswered[side & 1]++;
	u32 hop = control_write(p);
	if (!hop)
		return REFUSED_NO_ROUTE;
	port_send_copy(p, hop);
	return REFUSED_NOT;
}

INLINE u32 command_heartbeat(struct packet *p, struct scratch *x, struct config *config, const struct command *c)
{
	u64 nonce = c->nonce;
	struct session *s = port_session(&nonce);

	if (!s)
		return REFUSED_NO_SESSION;
	if (s->over_ns)
		return REFUSED_SESSION_OVER;
	if (s->unanswered[SIDE_LEFT] >= HEARTBEATS_LOST)
		return session_lost(s, nonce, s->left_sub.src, SIDE_LEFT);
	if (s->unanswered[SIDE_RIGHT] >= HEARTBEATS_LOST)
		return session_lost(s, nonce, s->right_sub.dst, SIDE_RIGHT);
	s->beat = c->txid;
	s->beat_ns = port_now();
	u32 result = s->right_sub.dport ? heartbeat_send(p, x, config, s, nonce, SIDE_RIGHT) : REFUSED_NOT;
	if (s->left_sub.dport && !(s->flags & SESSION_NAT)) /* what is behind a NAT cannot be asked */
		result = heartbeat_send(p, x, config, s, nonce, SIDE_LEFT);
	return result;
}

/* Whether this is the subsession on which a session goes on from here, or will once a reconfiguration is over. */
INLINE int still_uses(const struct config *config, const struct session *s, u64 nonce, u32 side, const struct five_tuple *key)
{
	struct reconfig_key record = { nonce, side, 0 };
	struct reconfig *r = port_reconfig(&record);
	struct five_tuple to = side == SIDE_LEFT ? control_tuple(config, &s->left_sub) : leftward_tuple(config, &s->right_sub);

	if (r && r->phase >= PHASE_HANDSHAKE)
		return 1;
	return s->flags & SESSION_NAT || same_tuple(key, &to);
}

/* Does this agent have the session still?  The asker's right is our left. */
INLINE int heartbeat_arrived(struct packet *p, struct scratch *x, struct config *config, const struct five_tuple *key)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce;
	u32 side = m->hops & 1 ? SIDE_LEFT : SIDE_RIGHT;
	struct session *s = port_session(&nonce);
	int alive = s && !s->over_ns && still_uses(config, s, nonce, side, key);

	m->header.nonce = m->handle;
	return control_answer(p, x, key, MESSAGE_ALIVE, alive ? REFUSED_NOT : REFUSED_SESSION_OVER);
}

INLINE int heartbeat_answered(struct scratch *x)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce;
	u32 side = m->hops & 1;
	struct session *s = port_session(&nonce);

	if (!s || !s->unanswered[side] || s->beat != be32_of(m->txid)) {
		port_count(s ? COUNT_DROP_STALE_TXID : COUNT_DROP_UNKNOWN_SESSION);
		return VERDICT_DROP;
	}
	s->unanswered[side] = 0;
	if (m->reason && !s->over_ns)
		session_lost(s, nonce, side == SIDE_LEFT ? s->left_sub.src : s->right_sub.dst, side);
	return VERDICT_DROP;
}

#endif
