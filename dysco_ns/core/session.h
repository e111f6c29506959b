/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A session's record and its entries: made, found, forgotten. */
#ifndef DYSCO_SESSION_H
#define DYSCO_SESSION_H
#include "reasons.h"
#include "segment.h"

enum { REUSE_NS = 1000000000 }; /* a session that has been over for so long makes room for another */

INLINE int is_own(const struct config *config, be32 address)
{
	for (u32 i = 0; i < MAX_INTERFACES; i++)
		if (i < config->interface_count && config->interfaces[i].address == address)
			return 1;
	return 0;
}

/* Tells the daemon; nothing in the data path waits for it.  What only listeners want to know is not told while there are
 * none: short sessions would keep Python busy on the processors that carry them. */
NOINLINE int tell(u32 kind, u64 nonce, u32 txid, u32 value, u32 side)
{
	struct config *config = port_config();

	if (!config || (event_urgency(kind) == FOR_LISTENERS && !(config->flags & CONFIG_EVENTS)))
		return 0;
	struct event event = { port_now(), nonce, kind, txid, value, side };
	port_event(&event);
	return 0;
}

/* One session more (or less) for a middlebox of a type. */
NOINLINE int member_count(be32 member, u32 change)
{
	u64 *sessions = port_member(&member), none = 0;

	if (!sessions) {
		port_put_member(&member, &none);
		sessions = port_member(&member);
	}
	if (sessions)
		port_add(sessions, (u64)(s64)(s32)change);
	return 0;
}

/* A session that is over no longer counts. */
NOINLINE int members_release(struct session *s)
{
	if (!s)
		return -1;
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++) {
		be32 member = s->picked[i];
		if (member && __sync_val_compare_and_swap(&s->picked[i], member, 0) == member)
			member_count(member, 0u - 1);
	}
	s->picks = 0;
	return 0;
}

/* The entry that a new subsession gets: still without deltas. */
INLINE struct entry *entry_start(struct scratch *x, u64 nonce, u32 side, const struct five_tuple *to)
{
	struct entry *e = &x->entry;

	__builtin_memset(e, 0, sizeof(*e));
	e->nonce = nonce;
	e->side = (u8)side;
	e->to.to = *to;
	return e;
}

INLINE void entry_set_slow(const struct five_tuple *egress, const struct five_tuple *ingress, u8 slow)
{
	struct entry *out = port_egress(egress), *in = port_ingress(ingress);

	if (out)
		out->slow = slow;
	if (in)
		in->slow = slow;
}

/* By which nonce the neighbour on one side knows the session. */
INLINE u64 known_there(const struct session *s, u32 side, u64 nonce)
{
	u64 other = s->known_as[side & 1];

	return other ? other : nonce;
}

INLINE void known_by(struct session *s, u32 side, u64 nonce, u64 theirs) { s->known_as[side & 1] = theirs == nonce ? 0 : theirs; }

/* Notes that a session has ended; it is forgotten after a while (expiry.h). */
INLINE void session_over(struct session *s)
{
	if (s->over_ns || !(s->flags & (SESSION_RST | SESSION_LEFT_CHAIN) || (s->flags & SESSION_FINS) == SESSION_FINS))
		return;
	s->over_ns = port_now();
	if (s->picks)
		members_release(s);
}

INLINE void entry_bury(struct entry *e)
{
	if (e)
		e->flags |= ENTRY_TOMBSTONE;
}

/* Two processors may forget a session at once, and a new one may take its five-tuple in between: only who has taken
 * the entry out of its session's hands drops it, and nobody puts another in its place before it has gone. */
INLINE int entry_claim(struct entry *e, u64 nonce) { return e && nonce && port_swap(&e->nonce, nonce, 0); }

INLINE void egress_forget(const struct five_tuple *at, u64 nonce)
{
	struct five_tuple key = *at;

	if (entry_claim(port_egress(&key), nonce))
		port_drop_egress(&key);
}

INLINE void ingress_forget(const struct five_tuple *at, u64 nonce)
{
	struct five_tuple key = *at;

	if (entry_claim(port_ingress(&key), nonce))
		port_drop_ingress(&key);
}

INLINE void tombstone_drop(const struct five_tuple *at, u64 nonce)
{
	struct five_tuple key = *at;
	struct entry *e = port_ingress(&key);

	if (e && e->flags & ENTRY_TOMBSTONE)
		ingress_forget(&key, nonce);
}

/* An old path is over: what still comes on it is swallowed as long as the session lives, or until it has had more. */
INLINE void session_bury(struct session *s, u64 nonce, const struct five_tuple *old_in)
{
	struct five_tuple *grave = &s->buried[s->burials & (MAX_BURIED - 1)], key = *old_in;

	tombstone_drop(grave, nonce);
	*grave = key;
	s->burials++;
	entry_bury(port_ingress(&key));
}

/* Removes a session and all that belongs to it at this agent. */
NOINLINE int session_forget(struct session *s, u64 nonce)
{
	if (!s)
		return -1;
	struct five_tuple key;
	if (s->picks)
		members_release(s);
	for (u32 side = SIDE_LEFT; side <= SIDE_RIGHT; side++) {
		struct reconfig_key record = { nonce, side, 0 };
		struct reconfig *r = port_reconfig(&record);
		if (r) {
			ingress_forget(&r->new_in, nonce);
			ingress_forget(&r->old_in, nonce);
			port_drop_reconfig(&record);
		}
	}
	for (u32 i = 0; i < MAX_BURIED; i++)
		tombstone_drop(&s->buried[i], nonce);
	if (s->left_sub.dport) {
		ingress_forget(&s->left_sub, nonce);
		key = reversed(&s->left_tuple);
		egress_forget(&key, nonce);
	}
	egress_forget(&s->right_tuple, nonce);
	key = reversed(&s->right_sub);
	ingress_forget(&key, nonce);
	if (!port_drop_session(&nonce))
		port_count(COUNT_SESSION_FORGOTTEN);
	return 0;
}

#endif
