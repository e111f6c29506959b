/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The end of the old path (paper III-F), and of an attempt that failed (III-G).
 *
 * Completion is seen in the data path; release tells the other anchor, asks for its state, and unlocks.  It also
 * carries each anchor's cutoff as a beta, so that a session in which one side says nothing is completed too.  The
 * left anchor repeats it until the right one answers "over"; a middlebox that has left is told by that answer.
 */
#ifndef DYSCO_RELEASE_H
#define DYSCO_RELEASE_H
#include "anchor.h"
#include "lock.h"

/* What the message says about the other anchor. */
INLINE void release_learn(struct reconfig *r, const struct control_message *m)
{
	if (m->flags & CONTROL_BETA && !(r->flags & RECONFIG_BETA_IN)) {
		r->beta_in = be32_of(m->beta);
		r->flags |= RECONFIG_BETA_IN;
	}
	if (m->flags & CONTROL_BETA && !(r->flags & RECONFIG_PEER_CUTOFF)) {
		r->peer_cutoff = new_start(r);
		r->flags |= RECONFIG_PEER_CUTOFF;
	}
	if (m->flags & CONTROL_BETA_KNOWN)
		r->flags |= RECONFIG_BETA_OUT;
	if (m->flags & CONTROL_DRAINED)
		r->flags |= RECONFIG_PEER_DRAINED;
}

/* Takes in what the entries have seen, fixes the cutoff if nothing has been sent since, looks for completion. */
INLINE u32 release_update(struct reconfig *r, const struct entry *out, const struct entry *old_in, u64 now)
{
	if (r->phase != PHASE_READY)
		return 0;
	cutoff_fix(r, out->seen.seq_high);
	if (old_in->seen.has & SEEN_ACK)
		r->old_sent_acked = seq_max(r->old_sent_acked, seq_min(old_in->seen.ack, out->seen.seq_high));
	if (old_in->seen.has & SEEN_SEQ)
		r->old_rcvd = seq_max(r->old_rcvd, believed(r, old_in->seen.seq_high));
	return drained_check(r, now);
}

INLINE void release_write(struct control_message *m, const struct reconfig *r)
{
	m->beta = be32_of(r->beta_out);
	m->flags = (r->flags & RECONFIG_CUTOFF ? CONTROL_BETA : 0) | (r->flags & RECONFIG_BETA_IN ? CONTROL_BETA_KNOWN : 0) |
		   (r->flags & RECONFIG_DRAINED ? CONTROL_DRAINED : 0);
}

/* The chain to the right of the left anchor: the new path's middleboxes, then what lies from the right anchor on. */
INLINE void chain_replace(struct session *s, const struct reconfig *r)
{
	be32 rest[MAX_MIDDLEBOXES] = {}; /* places beyond the chain are copied too */
	u32 kept = 0, beyond_it = 0;

	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++) {
		if (i >= s->chain_length)
			break;
		beyond_it |= s->chain[i] == r->right_anchor;
		if (beyond_it)
			rest[kept++ & (MAX_MIDDLEBOXES - 1)] = s->chain[i];
	}
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++)
		s->chain[i] = i < r->chain_length ? r->chain[i] : rest[(i - r->chain_length) & (MAX_MIDDLEBOXES - 1)];
	kept += r->chain_length;
	s->chain_length = kept > MAX_MIDDLEBOXES ? MAX_MIDDLEBOXES : kept;
}

/* The old path is over at this anchor. */
INLINE void old_path_end(struct session *s, struct reconfig *r, u64 nonce, u32 side, struct entry *out)
{
	struct five_tuple new_in = r->new_in;

	session_bury(s, nonce, &r->old_in);
	if (side == SIDE_RIGHT) {
		s->right_sub = reversed(&new_in);
		s->lock = UNLOCKED;
		chain_replace(s, r);
		known_by(s, side, nonce, r->chain_length ? nonce : r->handle); /* who came by the new path has our nonce */
	} else {
		s->left_sub = new_in;
		known_by(s, side, nonce, r->named);
	}
	s->leg_delta[side & 1] = r->peer_delta;
	s->done_txid[side & 1] = r->txid;
	r->phase = PHASE_SETTLING;
	tell(EVENT_OLD_PATH_GONE, nonce, r->txid, 0, side);
	settle(r, out, port_ingress(&new_in), nonce, side, 0);
}

/* Right anchor: release has arrived. */
INLINE int release_at_right_anchor(struct packet *p, struct scratch *x, struct session *s, u64 nonce,
				   const struct five_tuple *key)
{
	struct control_message *m = control_message(x);
	struct reconfig_key record = { nonce, SIDE_LEFT, 0 };
	struct reconfig *r = port_reconfig(&record);
	u32 over = s->done_txid[SIDE_LEFT] == be32_of(m->txid);

	if (!over) {
		if (!r || r->txid != be32_of(m->txid)) {
			port_count(COUNT_DROP_STALE_TXID);
			return VERDICT_DROP;
		}
		struct entry *out = port_egress(&r->out_key), *in = port_ingress(&r->old_in);
		if (!out || !in || r->phase < PHASE_HANDSHAKE)
			return VERDICT_DROP;
		u64 now = port_now();
		u32 ready = r->phase == PHASE_HANDSHAKE;
		port_lock(r);
		if (ready) { /* the left anchor has had our SYN-ACK; its ACK is lost, and it may have nothing more to say there */
			r->phase = PHASE_READY;
			r->ready_ns = now;
		}
		release_learn(r, m);
		u32 drained = release_update(r, out, in, now);
		port_unlock(r);
		if (ready)
			tell(EVENT_NEW_PATH_READY, nonce, r->txid, 0, SIDE_LEFT);
		if (drained)
			tell(EVENT_DRAINED, nonce, r->txid, 0, SIDE_LEFT);
		if (m->flags & CONTROL_GO && r->flags & RECONFIG_PARK && !(r->flags & RECONFIG_GO)) {
			r->flags |= RECONFIG_GO;
			tell(EVENT_UNPARK, nonce, r->txid, 0, SIDE_LEFT);
		}
		over = r->flags & RECONFIG_DRAINED && m->flags & CONTROL_DRAINED && m->flags & CONTROL_BETA_KNOWN &&
		       (!(r->flags & RECONFIG_PARK) || r->flags & RECONFIG_GO);
		if (over)
			old_path_end(s, r, nonce, SIDE_LEFT, out);
	}
	if (r && r->txid == be32_of(m->txid))
		release_write(m, r);
	else
		m->flags = CONTROL_BETA_KNOWN | CONTROL_DRAINED;
	if (over)
		m->flags |= CONTROL_OVER;
	return control_answer(p, x, key, MESSAGE_ACK_RELEASE, 0);
}

/* A message of release or cancel passes rightward through an agent between the anchors. */
INLINE int passes_rightward(struct packet *p, struct scratch *x, struct config *config, struct session *s, u64 nonce)
{
	struct control_message *m = control_message(x);
	struct session *next = beyond(s, &nonce);

	if (!next || next->txid != be32_of(m->txid) || next->requestor != m->left_anchor) {
		port_count(COUNT_DROP_STALE_TXID);
		return VERDICT_DROP;
	}
	next->lock_until_ns = port_now() + LOCK_LEASE_NS;
	name_right_anchor(config, m, next);
	m->header.nonce = known_there(next, SIDE_RIGHT, nonce);
	m->handle = nonce;
	struct five_tuple to = control_tuple(config, &next->right_sub);
	return control_send(p, x, &to);
}

INLINE int release_arrived(struct packet *p, struct scratch *x, struct config *config, const struct five_tuple *key)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce;
	struct session *s = port_session(&nonce);

	if (!s) {
		port_count(COUNT_DROP_UNKNOWN_SESSION);
		return VERDICT_DROP;
	}
	m->header.nonce = m->handle; /* of the answer */
	if (at_right_anchor(config, m, s))
		return release_at_right_anchor(p, x, s, nonce, key);
	if (s->left_txid && s->left_txid == be32_of(m->txid)) { /* we were told "over", and are on another path by now */
		m->flags = CONTROL_BETA_KNOWN | CONTROL_DRAINED | CONTROL_OVER;
		return control_answer(p, x, key, MESSAGE_ACK_RELEASE, 0);
	}
	return passes_rightward(p, x, config, s, nonce);
}

/* This middlebox has left the chain: both its subsessions fall silent. */
INLINE void leave_chain(struct session *left, struct session *right, u64 nonce, u32 txid)
{
	struct five_tuple key;

	if (left->flags & SESSION_LEFT_CHAIN)
		return;
	key = left->left_sub;
	entry_bury(port_ingress(&key));
	key = reversed(&left->left_tuple);
	entry_bury(port_egress(&key));
	key = reversed(&right->right_sub);
	entry_bury(port_ingress(&key));
	key = right->right_tuple;
	entry_bury(port_egress(&key));
	left->flags |= SESSION_LEFT_CHAIN;
	right->flags |= SESSION_LEFT_CHAIN;
	session_over(left);
	session_over(right);
	tell(EVENT_LEFT_CHAIN, nonce, txid, 0, SIDE_RIGHT);
}

INLINE int release_answered(struct packet *p, struct scratch *x)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce;
	u32 txid = be32_of(m->txid), over = m->flags & CONTROL_OVER;
	struct session *s = port_session(&nonce);

	if (!s) {
		port_count(COUNT_DROP_UNKNOWN_SESSION);
		return VERDICT_DROP;
	}
	struct reconfig_key record = { nonce, SIDE_RIGHT, 0 };
	struct reconfig *r = port_reconfig(&record);
	if (!r || r->txid != txid) { /* between the anchors; one that has left passes on what is repeated */
		if (!lock_is_of(s, txid, m->left_anchor) && !(s->txid == txid && s->flags & SESSION_LEFT_CHAIN)) {
			port_count(COUNT_DROP_STALE_TXID);
			return VERDICT_DROP;
		}
		struct session *left = s->flags & SESSION_SPLICED ? port_session(&s->peer) : s;
		if (over && left) {
			s->lock = UNLOCKED;
			leave_chain(left, s, nonce, txid);
		}
		m->header.nonce = s->request_nonce;
		struct five_tuple back = reversed(&s->request_from);
		return control_send(p, x, &back);
	}
	if (r->phase != PHASE_READY) {
		port_count(COUNT_DROP_STALE_TXID);
		return VERDICT_DROP;
	}
	struct entry *out = port_egress(&r->out_key), *in = port_ingress(&r->old_in);
	if (!out || !in)
		return VERDICT_DROP;
	u64 now = port_now();
	port_lock(r);
	r->heard_ns = now;
	release_learn(r, m);
	u32 drained = release_update(r, out, in, now);
	port_unlock(r);
	if (drained)
		tell(EVENT_DRAINED, nonce, txid, 0, SIDE_RIGHT);
	u32 waiting = RECONFIG_PARK | RECONFIG_DRAINED | RECONFIG_PEER_DRAINED | RECONFIG_BETA_IN;
	if (over) {
		u32 unused = !(r->flags & RECONFIG_FIRST_NEW) && out->seen.seq_high == r->old_sent;
		old_path_end(s, r, nonce, SIDE_RIGHT, out);
		if (s->over_ns && unused) /* it ended on the old path: whoever is on the new one has not seen it */
			new_path_reset(p, x, r);
	} else if ((r->flags & (waiting | RECONFIG_GO)) == waiting)
		tell(EVENT_MIGRATE, nonce, txid, 0, SIDE_RIGHT);
	return VERDICT_DROP;
}

/* ---- cancel ---- */

INLINE int cancel_arrived(struct packet *p, struct scratch *x, struct config *config, const struct five_tuple *key)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce;
	struct session *s = port_session(&nonce);

	if (!s) {
		port_count(COUNT_DROP_UNKNOWN_SESSION);
		return VERDICT_DROP;
	}
	m->header.nonce = m->handle; /* of the answer */
	if (!at_right_anchor(config, m, s))
		return passes_rightward(p, x, config, s, nonce);
	struct reconfig_key record = { nonce, SIDE_LEFT, 0 };
	struct reconfig *r = port_reconfig(&record);
	if (r && r->txid == be32_of(m->txid) && can_undo(r))
		attempt_undo(r, nonce, SIDE_LEFT);
	return control_answer(p, x, key, MESSAGE_ACK_CANCEL, 0);
}

INLINE int cancel_answered(struct packet *p, struct scratch *x)
{
	struct control_message *m = control_message(x);
	u64 nonce = m->header.nonce;
	struct session *s = port_session(&nonce);

	if (!s) {
		port_count(COUNT_DROP_UNKNOWN_SESSION);
		return VERDICT_DROP;
	}
	struct reconfig_key record = { nonce, SIDE_RIGHT, 0 };
	struct reconfig *r = port_reconfig(&record);
	if (!r || r->txid != be32_of(m->txid))
		return lock_answer_passes(p, x, s, nonce, 0);
	if (!can_undo(r))
		return VERDICT_DROP;
	s->lock = UNLOCKED;
	attempt_undo(r, nonce, SIDE_RIGHT);
	return held_refuse(p, nonce);
}

#endif
