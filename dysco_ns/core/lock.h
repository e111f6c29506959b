/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The lock handshake: requestLock rightward, ackLock or nackLock back (paper III-B, III-D).
 *
 * The agent at the left of each subsession keeps its lock.  On the way the message crosses a spliced proxy from one
 * of its sessions to the other, and gathers the deltas of what will leave the chain.
 */
#ifndef DYSCO_LOCK_H
#define DYSCO_LOCK_H
#include "control.h"
#include "freshness.h"
#include "newpath.h"

/* The session that goes on to the right of `s` at this agent: itself, or the one a proxy joined to it. */
INLINE struct session *beyond(struct session *s, u64 *nonce)
{
	if (!(s->flags & SESSION_LAST))
		return s;
	if (!(s->flags & SESSION_SPLICED))
		return 0;
	*nonce = s->peer;
	return port_session(nonce);
}

/* Behind port forwarding a host is known by the NAT's address, and by that alone can a new path reach it. */
INLINE int at_right_anchor(const struct config *config, const struct control_message *m, const struct session *s)
{
	if (m->flags & CONTROL_RIGHT_OF)
		return 0;
	return s->flags & SESSION_FORWARDED ? m->right_anchor == s->outside : is_own(config, m->right_anchor);
}

/* "The agent right of me": the last middlebox that is to leave writes its neighbour's address there. */
INLINE void name_right_anchor(const struct config *config, struct control_message *m, const struct session *next)
{
	if (!(m->flags & CONTROL_RIGHT_OF) || !is_own(config, m->right_anchor))
		return;
	m->right_anchor = next->right_sub.dst;
	m->flags &= (u8)~CONTROL_RIGHT_OF;
}

/* Whether the lock of the subsession right of `s` is this transaction's. */
INLINE int lock_is_of(const struct session *s, u32 txid, be32 requestor)
{
	return s->lock != UNLOCKED && s->txid == txid && s->requestor == requestor;
}

/* Takes the lock of the subsession right of `s` for a transaction; repeated requests of the same one succeed. */
INLINE int lock_take(struct session *s, u32 txid, be32 requestor)
{
	int ours = lock_is_of(s, txid, requestor);

	if (s->lock != UNLOCKED && !ours && port_now() > s->lock_until_ns)
		s->lock = UNLOCKED; /* a dead anchor's lease has run out */
	if (s->lock != UNLOCKED && !ours)
		return -1;
	if (s->lock == UNLOCKED && __sync_val_compare_and_swap(&s->lock, UNLOCKED, LOCK_PENDING) != UNLOCKED)
		return -1;
	if (s->held.txid == txid)
		s->held.txid = 0;
	s->txid = txid;
	s->requestor = requestor;
	s->lock_until_ns = port_now() + LOCK_LEASE_NS;
	return 0;
}

/* A request meets the lock of another: it waits if that one is pending.  One can wait; others may try again. */
INLINE int lock_hold(struct session *s, const struct control_message *m, const struct five_tuple *from)
{
	if (s->lock != LOCK_PENDING || (s->held.txid && s->held.txid != be32_of(m->txid)))
		return -1;
	s->held.nonce = m->header.nonce;
	s->held.left_anchor = m->left_anchor;
	s->held.right_anchor = m->right_anchor;
	s->held.from = *from;
	s->held.txid = be32_of(m->txid);
	return 0;
}

/* The packet in hand becomes the refusal of the request that has waited.  Returns the next hop's index, 0: none has. */
NOINLINE u32 held_write(struct packet *p, u64 nonce)
{
	struct scratch *x = port_scratch();
	struct session *s = port_session(&nonce);

	if (!x || !s || !p || !s->held.txid)
		return 0;
	struct control_message *m = control_message(x);
	__builtin_memset(m, 0, sizeof(*m));
	m->header.type = MESSAGE_NACK_LOCK;
	m->header.nonce = s->held.nonce;
	m->txid = be32_of(s->held.txid);
	m->left_anchor = s->held.left_anchor;
	m->right_anchor = s->held.right_anchor;
	m->reason = REFUSED_LOCKED;
	struct five_tuple back = reversed(&s->held.from);
	x->control_to = back;
	s->held.txid = 0;
	return control_write(p);
}

/* It leaves, if there is one. */
NOINLINE int held_refuse(struct packet *p, u64 nonce)
{
	u32 hop = p ? held_write(p, nonce) : 0;

	return hop ? port_redirect(p, hop) : VERDICT_DROP;
}

/* At the right anchor: the left one has gone without a word, or its cancel was lost. */
INLINE int attempt_abandoned(const struct reconfig *r)
{
	return r->phase < PHASE_READY && port_now() > r->lock_ns + LOCK_LEASE_NS;
}

/* This agent is the right anchor: its record of the reconfiguration.  Returns enum refusal. */
INLINE u32 lock_at_right_anchor(struct scratch *x, struct session *s, u64 nonce, u32 txid)
{
	struct control_message *m = control_message(x);
	struct reconfig_key key = { nonce, SIDE_LEFT, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (!s->left_sub.dport)
		return REFUSED_NO_RIGHT_ANCHOR;
	if (s->flags & (SESSION_RST | SESSION_LEFT_CHAIN))
		return REFUSED_SESSION_OVER;
	if (r && r->phase != PHASE_DONE && r->txid == txid)
		return REFUSED_NOT;
	if (!transaction_new(s, txid))
		return REFUSED_STALE;
	transaction_note(s, txid);
	if (r && r->phase != PHASE_DONE) {
		if (!attempt_abandoned(r))
			return REFUSED_BUSY;
		attempt_undo(r, nonce, SIDE_LEFT);
	}
	struct config *config = port_config();
	if (m->flags & CONTROL_PARK && !(config && config->parking))
		return REFUSED_PARKING;
	struct five_tuple out_key = reversed(&s->left_tuple);
	struct entry *out = port_egress(&out_key), *in = port_ingress(&s->left_sub);
	if (!out || !in)
		return REFUSED_SESSION_OVER;
	if (!both_ways_seen(out, in))
		return REFUSED_BAD_STATE;
	r = (struct reconfig *)x->reconfig;
	__builtin_memset(r, 0, sizeof(*r));
	r->txid = txid;
	r->phase = PHASE_LOCKING;
	r->left_anchor = m->left_anchor;
	r->right_anchor = m->right_anchor;
	r->handle = nonce;
	r->out_key = out_key;
	r->old_in = s->left_sub;
	r->peer_delta = be32_of(m->delta) + delta_of(in, m);
	clock_gathered(r, m);
	r->flags |= m->flags & CONTROL_PARK ? RECONFIG_PARK : 0;
	r->lock_ns = port_now();
	record_begin(r, s, SIDE_LEFT, out, in);
	if (port_put_reconfig(&key, r))
		return REFUSED_BUSY;
	out->slow = 1;
	in->slow = 1;
	tell(EVENT_LOCKED, nonce, txid, m->left_anchor, SIDE_LEFT);
	return REFUSED_NOT;
}

/* What the agents between the anchors do to sequence numbers is added to the message as it passes: `left` is the
 * session at this agent as it comes from the left, `right` as it goes on, the same but at a spliced proxy. */
INLINE void gather_rightward(struct control_message *m, const struct session *left, const struct session *right)
{
	struct five_tuple in_key = left->left_sub, out_key = right->right_tuple;
	u32 delta = be32_of(m->delta) + delta_of(port_ingress(&in_key), m) + delta_of(port_egress(&out_key), m);

	if (left != right) {
		delta += left->splice_delta[RIGHTWARD];
		m->flags |= CONTROL_CLOCKS;
	}
	m->delta = be32_of(delta);
}

INLINE void gather_leftward(struct control_message *m, const struct session *left, const struct session *right)
{
	struct five_tuple in_key = reversed(&right->right_sub), out_key = reversed(&left->left_tuple);
	u32 delta = be32_of(m->delta) + delta_of(port_ingress(&in_key), m) + delta_of(port_egress(&out_key), m);

	if (left != right)
		delta += right->splice_delta[LEFTWARD];
	m->delta = be32_of(delta);
}

/* Whether an earlier reconfiguration is not finished on one side of this agent: its betas are not known yet. */
INLINE int unsettled(u64 nonce, u32 side)
{
	struct reconfig_key key = { nonce, side, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (r && side == SIDE_LEFT && attempt_abandoned(r)) {
		attempt_undo(r, nonce, SIDE_LEFT);
		return 0;
	}
	if (r && side == SIDE_RIGHT && r->phase < PHASE_READY && !(r->flags & RECONFIG_SYN_ACK)) { /* its lease has run out: nobody leads it */
		attempt_undo(r, nonce, SIDE_RIGHT);
		return 0;
	}
	return r && r->phase != PHASE_DONE;
}

/* The two sessions of a proxy must agree about timestamps, or neither side could echo the other's. */
INLINE int splice_compatible(const struct session *a, const struct session *b)
{
	u8 differ = a->offer[LEFTWARD].has ^ b->offer[LEFTWARD].has;

	return !(differ & OFFER_TIMESTAMP);
}

/* Whether a request between the anchors is an old one; one that has the lock, or waits for it, is repeated.  `left` is its
 * session as it comes from the left, `next` as it goes on, the same but at a spliced proxy, 0 at another. */
INLINE int request_stale(const struct session *left, const struct session *next, u32 txid, be32 requestor)
{
	if (next && (lock_is_of(next, txid, requestor) || next->held.txid == txid))
		return 0;
	return !transaction_new(left, txid) || (next && next != left && !transaction_new(next, txid));
}

/* requestLock has arrived from the left. */
INLINE int lock_requested(struct packet *p, struct scratch *x, struct config *config, const struct five_tuple *key)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce, left = nonce;
	u32 txid = be32_of(m->txid);
	struct session *s = port_session(&nonce);

	m->header.nonce = m->handle; /* of the answer */
	if (!s)
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_NO_SESSION);
	if (is_own(config, m->left_anchor)) /* it has come back to where it began: this host is on the chain twice */
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_NO_RIGHT_ANCHOR);
	if (at_right_anchor(config, m, s)) {
		u32 refusal = lock_at_right_anchor(x, s, nonce, txid);
		m->handle = refusal == REFUSED_STALE ? be32_of(s->newest) : nonce;
		struct five_tuple out_key = reversed(&s->left_tuple);
		m->beta = 0;
		m->delta = be32_of(delta_of(port_egress(&out_key), m));
		m->right_anchor = s->home ? s->home : m->right_anchor;
		m->window_scale = s->offer[LEFTWARD].window_scale;
		return control_answer(p, x, key, refusal ? MESSAGE_NACK_LOCK : MESSAGE_ACK_LOCK, refusal);
	}
	struct session *next = beyond(s, &nonce);
	if (request_stale(s, next, txid, m->left_anchor)) {
		m->handle = be32_of(s->newest);
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_STALE);
	}
	transaction_note(s, txid);
	if (s->flags & SESSION_FORWARDED)
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_FORWARDED);
	if (!next)
		return control_answer(p, x, key, MESSAGE_NACK_LOCK,
				      is_own(config, m->right_anchor) ? REFUSED_NOT_SPLICED : REFUSED_NO_RIGHT_ANCHOR);
	if ((s->flags | next->flags) & (SESSION_RST | SESSION_LEFT_CHAIN) || !next->right_sub.dport)
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_SESSION_OVER);
	if (next != s && !splice_compatible(s, next))
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_OPTIONS);
	transaction_note(next, txid);
	if (lock_take(next, txid, m->left_anchor)) {
		if (!lock_hold(next, m, key))
			return VERDICT_DROP;
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_LOCKED);
	}
	if (unsettled(left, SIDE_LEFT) || unsettled(nonce, SIDE_RIGHT)) { /* its own left anchor would hold the lock else */
		next->lock = UNLOCKED;
		return control_answer(p, x, key, MESSAGE_NACK_LOCK, REFUSED_BUSY);
	}
	next->request_from = *key;
	next->request_nonce = m->handle;
	name_right_anchor(config, m, next);
	gather_rightward(m, s, next);
	m->header.nonce = known_there(next, SIDE_RIGHT, nonce);
	m->handle = nonce;
	m->hops++;
	tell(EVENT_LOCK_PENDING, nonce, txid, m->left_anchor, SIDE_RIGHT);
	struct five_tuple to = control_tuple(config, &next->right_sub);
	return control_send(p, x, &to);
}

/* An answer has come from the right to an agent that is not the left anchor: pass it on, leftward.  A grant may be repeated;
 * a refusal comes while the lock is pending, the answer to a cancel at any time. */
INLINE int lock_answer_passes(struct packet *p, struct scratch *x, struct session *s, u64 nonce, int granted)
{
	struct control_message *m = control_message(x);
	u32 txid = be32_of(m->txid);
	int refused_late = m->header.type == MESSAGE_NACK_LOCK && s->lock != LOCK_PENDING;

	if (!lock_is_of(s, txid, m->left_anchor) || refused_late) {
		port_count(COUNT_DROP_STALE_TXID);
		return VERDICT_DROP;
	}
	s->lock = granted ? LOCKED : UNLOCKED;
	tell(granted ? EVENT_LOCKED : EVENT_UNLOCKED, nonce, txid, m->left_anchor, SIDE_RIGHT);
	struct session *left = s->flags & SESSION_SPLICED ? port_session(&s->peer) : s;
	if (granted && left)
		gather_leftward(m, left, s);
	m->header.nonce = s->request_nonce;
	x->control_to = reversed(&s->request_from);
	if (!s->held.txid)
		return control_leave(p);
	u32 hop = control_write(p);
	if (hop)
		port_send_copy(p, hop);
	return held_refuse(p, nonce);
}

/* ackLock or nackLock has arrived from the right. */
INLINE int lock_answered(struct packet *p, struct scratch *x, struct config *config)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce;
	int granted = m->header.type == MESSAGE_ACK_LOCK;
	struct session *s = port_session(&nonce);
	struct reconfig_key record = { nonce, SIDE_RIGHT, 0 };
	struct reconfig *r = port_reconfig(&record);

	if (!s) {
		port_count(COUNT_DROP_UNKNOWN_SESSION);
		return VERDICT_DROP;
	}
	if (!r || r->txid != be32_of(m->txid))
		return lock_answer_passes(p, x, s, nonce, granted);
	if (r->phase != PHASE_LOCKING || (granted && r->flags & RECONFIG_CANCEL)) {
		port_count(COUNT_DROP_STALE_TXID);
		return VERDICT_DROP;
	}
	if (granted) {
		u32 hop = new_path_start(p, x, config, s, nonce, r);
		if (!s->held.txid)
			return hop ? port_redirect(p, hop) : VERDICT_DROP;
		if (hop)
			port_send_copy(p, hop);
		return held_refuse(p, nonce);
	}
	entry_set_slow(&r->out_key, &r->old_in, 0);
	port_drop_reconfig(&record);
	s->lock = UNLOCKED;
	if (m->reason == REFUSED_STALE)
		transaction_heard(s, be32_of((u32)m->handle));
	tell(EVENT_LOCK_REFUSED, nonce, be32_of(m->txid), m->reason, SIDE_RIGHT);
	return held_refuse(p, nonce);
}

#endif
