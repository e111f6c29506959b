/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sessions that are over leave the tables, after a while in which late segments still find a silent tombstone; so do
 * sessions that have been silent for too long, and SYNs that nobody has answered.  The daemon asks for a pass over the
 * table now and then, with less patience the fuller the tables are.
 */
#ifndef DYSCO_EXPIRY_H
#define DYSCO_EXPIRY_H
#include "session.h"

enum { EXPIRE_AT_ONCE = 256 }; /* sessions forgotten in one pass, a third of a millisecond: packets wait for it */

/* Whether `then` is more than `ns` ago.  Another processor may have set it since the pass began: then it is not. */
INLINE int longer_ago(const struct expiry_pass *pass, u64 then, u64 ns) { return pass->now > then && pass->now - then > ns; }

/* Packets of a session so far, by what it sends. */
INLINE u64 session_packets(const struct session *s)
{
	struct five_tuple key = s->right_tuple;
	struct entry *right = port_egress(&key);
	key = reversed(&s->left_tuple);
	struct entry *left = s->left_sub.dport ? port_egress(&key) : 0;

	return (right ? right->packets : 0) + (left ? left->packets : 0);
}

INLINE void session_idle(struct session *s, u64 nonce, const struct expiry_pass *pass)
{
	u64 packets = session_packets(s), beat = pass->beat_ns;

	if (!beat && s->new_path.txid) /* a FIN that passed while the new path was made has not been seen here */
		beat = NEW_PATH_BEAT_NS;
	if (packets != s->idle_packets || !s->idle_since_ns) {
		s->idle_packets = packets;
		s->idle_since_ns = pass->now;
	} else if (longer_ago(pass, s->idle_since_ns, pass->idle_ns)) {
		s->over_ns = pass->now;
	} else if (beat && longer_ago(pass, s->idle_since_ns, beat) && longer_ago(pass, s->beat_ns, beat)) {
		tell(EVENT_SESSION_SILENT, nonce, 0, 0, SIDE_RIGHT);
	}
}

/* One that seems over and is not silent yet stays: its last bytes may be sent again late, or its end may have been forged. */
INLINE void session_talks_on(struct session *s, const struct expiry_pass *pass)
{
	u64 packets = session_packets(s);

	if (packets == s->idle_packets)
		return;
	if (s->idle_packets && longer_ago(pass, s->over_ns, 0))
		s->over_ns = pass->now;
	s->idle_packets = packets;
}

/* A SYN that has had no answer for twice as long as sessions linger: its sender has given up, or never was. */
INLINE int session_unanswered(const struct session *s, const struct expiry_pass *pass)
{
	return !(s->offer[LEFTWARD].has & OFFER_SEEN) && longer_ago(pass, s->created_ns, 2 * pass->linger_ns + REUSE_NS);
}

static long session_expire(void *table, u64 *nonce, struct session *s, void *context)
{
	struct scratch *x = port_scratch();

	(void)table;
	(void)context;
	if (!x)
		return 1;
	struct expiry_pass *pass = &x->expiry;
	if (s->over_ns)
		session_talks_on(s, pass);
	else if (pass->idle_ns)
		session_idle(s, *nonce, pass);
	if (!session_unanswered(s, pass) && !(s->over_ns && longer_ago(pass, s->over_ns, pass->linger_ns)))
		return 0;
	u64 key = *nonce;
	session_forget(s, key);
	return ++pass->forgotten >= EXPIRE_AT_ONCE;
}

/* One pass.  REFUSED_BUSY: there is more to forget than it may. */
INLINE u32 expire(struct scratch *x, const struct command *c)
{
	x->expiry = (struct expiry_pass){ port_now(), c->linger_ns, c->idle_ns, c->beat_ns, 0 };
	port_each_session(session_expire);
	return x->expiry.forgotten < EXPIRE_AT_ONCE ? REFUSED_NOT : REFUSED_BUSY;
}

#endif
