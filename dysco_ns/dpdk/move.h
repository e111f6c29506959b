/* SPDX-License-Identifier: Apache-2.0 */
/* A session moves to another core: the two that a proxy joins must be one core's.  While all cores have let go. */
#ifndef DYSCO_DPDK_MOVE_H
#define DYSCO_DPDK_MOVE_H
#include "mbuf_port.h"

/* One entry of the session.  Non-zero: no room at its new core. */
static int entry_move(struct agent *from, struct agent *to, u32 arriving, const struct five_tuple *key, u64 nonce)
{
	here = from;
	struct entry *e = arriving ? port_ingress(key) : port_egress(key);
	if (!e || e->nonce != nonce)
		return 0;
	struct entry copy = *e;
	entry_drop(arriving ? &from->ingress : &from->egress, arriving, key);
	here = to;
	return entry_put(arriving ? &to->ingress : &to->egress, arriving, key, &copy);
}

static int record_move(struct agent *from, struct agent *to, u32 side, u64 nonce)
{
	struct reconfig_key key = { nonce, side, 0 };
	struct reconfig *r = table_find(&from->reconfig, &key);

	if (!r)
		return 0;
	struct reconfig copy = *r;
	table_drop(&from->reconfig, &key);
	return entry_move(from, to, 1, &copy.new_in, nonce) || entry_move(from, to, 1, &copy.old_in, nonce) ||
	       table_put(&to->reconfig, &key, &copy);
}

/* Moves it with all its entries.  Non-zero: there is no room; what had no room is lost, and with it the session. */
static int session_move(struct agent *from, struct agent *to, u64 nonce)
{
	struct session *there = sessions_find(&from->sessions, nonce);

	if (!there)
		return 0;
	struct session s = *there;
	sessions_close(&from->sessions);
	struct five_tuple left = reversed(&s.left_tuple), right = reversed(&s.right_sub);
	int failed = entry_move(from, to, 0, &left, nonce) | entry_move(from, to, 0, &s.right_tuple, nonce) |
		     entry_move(from, to, 1, &s.left_sub, nonce) | entry_move(from, to, 1, &right, nonce);
	for (u32 i = 0; i < MAX_BURIED; i++)
		failed |= entry_move(from, to, 1, &s.buried[i], nonce);
	failed |= record_move(from, to, SIDE_LEFT, nonce) | record_move(from, to, SIDE_RIGHT, nonce);
	sessions_drop(&from->sessions, nonce);
	table_bury(&from->sessions.table);
	return sessions_put(&to->sessions, nonce, &s) || failed;
}

#endif
