/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sessions that are over leave the tables, after a while in which late segments still find a silent tombstone; so do
 * sessions that have been silent for too long.  The daemon asks for a pass over the table now and then.
 */
#ifndef DYSCO_EXPIRY_H
#define DYSCO_EXPIRY_H
#include "session.h"

enum { EXPIRE_AT_ONCE = 2048 }; /* sessions forgotten in one pass: packets wait for it */

/* Packets of a session so far, by what it sends. */
INLINE u64 session_packets(const struct session *s)
{
	struct five_tuple key = s->right_tuple;
	struct entry *right = port_egress(&key);
	key = reversed(&s->left_tuple);
	struct entry *left = s->left_sub.dport ? port_egress(&key) : 0;

	return (right ? right->packets : 0) + (left ? left->packets : 0);
}

INLINE void session_idle(struct session *s, const struct expiry_pass *pass)
{
	u64 packets = session_packets(s);

	if (packets != s->idle_packets || !s->idle_since_ns) {
		s->idle_packets = packets;
		s->idle_since_ns = pass->now;
	} else if (pass->now - s->idle_since_ns > pass->idle_ns) {
		s->over_ns = pass->now;
	}
}

static long session_expire(void *table, u64 *nonce, struct session *s, void *context)
{
	struct scratch *x = port_scratch();

	(void)table;
	(void)context;
	if (!x)
		return 1;
	struct expiry_pass *pass = &x->expiry;
	if (pass->idle_ns && !s->over_ns)
		session_idle(s, pass);
	if (!s->over_ns || pass->now - s->over_ns < pass->linger_ns)
		return 0;
	u64 key = *nonce;
	session_forget(s, key);
	return ++pass->forgotten >= EXPIRE_AT_ONCE;
}

/* One pass; `idle` says whether it also looks for silent sessions. */
INLINE u32 expire(struct scratch *x, const struct config *config, u32 idle)
{
	x->expiry = (struct expiry_pass){ port_now(), config->linger_ns, idle ? config->idle_ns : 0, 0 };
	port_each_session(session_expire);
	return REFUSED_NOT;
}

#endif
