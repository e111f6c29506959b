/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The handshake of the new path (paper III-A, III-C, III-E).
 *
 * left anchor                         right anchor
 *   SYN, set-up message, TSval T0  ->
 *                                  <-  SYN-ACK, TSval T0'
 *   ACK                            ->  ready
 *                               ready  <-  ACK with the scaled window
 *
 * The initial sequence numbers say "nothing sent yet on this path": the next unsent number, less one for the SYN.
 */
#ifndef DYSCO_NEWPATH_H
#define DYSCO_NEWPATH_H
#include "control.h"
#include "setup.h"
#include "twopaths.h"

enum { HANDSHAKE_WINDOW = WINDOW_OPEN };

/* What the session offered in the direction in which this anchor now sends. */
INLINE const struct offer *own_offer(const struct session *s, u32 side)
{
	return side == SIDE_RIGHT ? &s->offer[RIGHTWARD] : &s->offer[LEFTWARD];
}

/* The window scale by which the stack here reads what arrives from this side. */
INLINE u32 known_scale(const struct session *s, u32 side)
{
	return side == SIDE_RIGHT ? s->offer[LEFTWARD].window_scale : s->offer[RIGHTWARD].window_scale;
}

/* Both anchors: fixes what this end offers on the new path, from what it has last sent on the old one. */
INLINE void new_path_offer(struct reconfig *r, const struct entry *out)
{
	r->isn_out = out->seen.seq_high - 1;
	r->ts_out0 = out->seen.tsval;
	r->ts_held = out->seen.tsval;
}

/* Whether the handshake is over as far as these two entries have seen: without numbers there is nothing to begin from. */
INLINE int both_ways_seen(const struct entry *out, const struct entry *in)
{
	return (out->seen.has & in->seen.has & (SEEN_SEQ | SEEN_ACK)) == (SEEN_SEQ | SEEN_ACK);
}

enum { LONG_AGO = 1 << 30 };    /* behind every timestamp that is under way */

/* Both anchors, when the record is made: what the entries have seen so far.  From here on the slow path keeps it. */
INLINE void record_begin(struct reconfig *r, const struct session *s, u32 side, const struct entry *out,
			 const struct entry *in)
{
	r->own_scale = own_offer(s, side)->window_scale;
	r->known_scale = known_scale(s, side);
	r->ts_delivered = in->seen.tsval;
	r->ts_old_seen = in->seen.tsval;
	r->ts_echoed = out->seen.tsval - LONG_AGO; /* none yet */
	r->old_rcvd_acked = out->seen.ack;
	r->old_sent_acked = seq_min(in->seen.ack, out->seen.seq_high); /* nobody can have acknowledged what was not sent */
	r->flags |= s->new_path.txid ? RECONFIG_BROUGHT_IN : 0;
	r->old_window = promises(r, in->seen.window) ? seen_window(&in->seen, r->known_scale) : 0;
	r->expected = out->seen.ack;
	r->ack_delivered = r->old_sent_acked;
	r->edge_delivered = r->old_sent_acked + (r->old_window << (r->known_scale & 15));
	r->edge_offered = out->seen.ack + (seen_window(&out->seen, r->own_scale) << (r->own_scale & 15));
	r->old_rcvd = believed(r, in->seen.seq_high);
}

/* Whether the other anchor is: it has asked for release or answered, or bytes have come or been echoed by the new path.  It may
 * have settled, and would pass on a handshake's segment that is said to it once more: its window, and its old timestamp. */
INLINE int peer_is_ready(const struct reconfig *r)
{
	return r->heard_ns || r->flags & (RECONFIG_BETA_IN | RECONFIG_BETA_OUT);
}

/* How far the clocks that the two anchors see are apart: gathered on the old path, unless a proxy with clocks of its own
 * leaves; then it must be measured. */
INLINE void clock_gathered(struct reconfig *r, const struct control_message *m)
{
	r->ts_offset = be32_of(m->beta);
	r->flags |= m->flags & CONTROL_CLOCKS ? RECONFIG_CLOCKS : RECONFIG_TS_OFFSET;
}

INLINE int new_path_entry(struct scratch *x, struct reconfig *r, u64 nonce, u32 side)
{
	struct five_tuple local = reversed(&r->out_key), arriving = r->new_in;
	struct entry *e = entry_start(x, nonce, side, &local);

	e->slow = 1;
	return port_put_ingress(&arriving, e);
}

/* The set-up message of the new path's SYN.  The list of what comes after its receiver ends with the right anchor. */
INLINE void new_path_message(struct scratch *x, const struct session *s, const struct reconfig *r, u64 nonce)
{
	struct setup_lists *l = &x->lists;
	struct five_tuple subsession = reversed(&r->new_in);

	l->chain_length = r->chain_length;
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++)
		l->chain[i] = i + 1 < r->chain_length ? r->chain[(i + 1) & (MAX_MIDDLEBOXES - 1)] : r->right_anchor;
	l->ends = 0; /* the list ends with an agent that knows the session */
	l->new_path.handle = r->handle;
	l->new_path.txid = r->txid;
	l->new_path.window_scale = s->offer[RIGHTWARD].window_scale;
	l->new_path.fins = s->flags & SESSION_FINS;
	setup_message_write(x, nonce, &r->out_key, &subsession);
}

/* Left anchor: makes the packet in hand the new path's SYN.  Returns the next hop's index, 0: cannot. */
NOINLINE u32 new_path_syn(struct packet *p, u64 nonce)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();
	struct session *s = port_session(&nonce);
	struct reconfig_key key = { nonce, SIDE_RIGHT, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (!x || !config || !s || !r || !p)
		return 0;
	new_path_message(x, s, r, nonce);
	int bytes = message_sign(config, r->new_in.src);
	if (bytes < 0)
		return 0;
	struct frame_header f = { reversed(&r->new_in), r->isn_out, 0, TCP_SYN, HANDSHAKE_WINDOW };
	frame_start(x, &f);
	frame_syn_options(x, &s->offer[RIGHTWARD], r->ts_out0, 0);
	return frame_finish(p, (u32)bytes) ? 0 : r->new_next_hop;
}

/* Left anchor: a reset along the new path tells its middleboxes that nothing will come of it. */
INLINE void new_path_reset(struct packet *p, struct scratch *x, const struct reconfig *r)
{
	struct frame_header f = { r->new_out.to, r->isn_out + 1, 0, TCP_RST, 0 };

	frame_start(x, &f);
	if (!frame_finish(p, 0))
		port_send_copy(p, r->new_next_hop);
}

/* Left anchor: the handshake's last segment. */
INLINE int new_path_ack(struct packet *p, struct scratch *x, const struct reconfig *r)
{
	struct frame_header f = { r->new_out.to, r->isn_out + 1, r->isn_in + 1, TCP_ACK, HANDSHAKE_WINDOW };

	frame_start(x, &f);
	if (r->flags & RECONFIG_TIMESTAMPS)
		frame_timestamp(x, r->ts_out0, r->ts_in0);
	return frame_finish(p, 0);
}

/* Left anchor: it may have got lost, and a firewall on the way does not know our window's scale.  Release makes the other anchor
 * ready all the same, so this is said again until it is known to be. */
INLINE void new_path_assert(struct packet *p, struct scratch *x, const struct reconfig *r)
{
	if (!peer_is_ready(r) && !new_path_ack(p, x, r))
		port_send_copy(p, r->new_next_hop);
}

/* Until data has gone on the new path an attempt can be undone. */
INLINE int can_undo(const struct reconfig *r)
{
	return r->phase < PHASE_READY || (r->phase == PHASE_READY && r->flags & RECONFIG_PARK && !(r->flags & RECONFIG_GO));
}

/* Undoes an attempt at an anchor: the old path goes on as before. */
INLINE void attempt_undo(struct reconfig *r, u64 nonce, u32 side)
{
	struct reconfig_key key = { nonce, side, 0 };
	struct five_tuple new_in = r->new_in;

	entry_set_slow(&r->out_key, &r->old_in, 0);
	if (r->phase >= PHASE_HANDSHAKE)
		ingress_forget(&new_in, nonce);
	tell(EVENT_CANCELLED, nonce, r->txid, 0, side);
	port_drop_reconfig(&key);
}

INLINE void lock_abandon(struct session *s, struct reconfig *r, u64 nonce, u32 reason)
{
	struct reconfig_key key = { nonce, SIDE_RIGHT, 0 };

	tell(EVENT_LOCK_REFUSED, nonce, r->txid, reason, SIDE_RIGHT);
	entry_set_slow(&r->out_key, &r->old_in, 0);
	s->lock = UNLOCKED;
	port_drop_reconfig(&key);
}

/* Left anchor: ackLock has come, the new path begins.  The packet in hand becomes its SYN; returns the next hop's index,
 * 0 if there is nothing to send. */
INLINE u32 new_path_start(struct packet *p, struct scratch *x, struct config *config, struct session *s, u64 nonce,
			  struct reconfig *r)
{
	struct control_message *m = control_message(x);
	struct entry *out = port_egress(&r->out_key), *in = port_ingress(&r->old_in);
	struct five_tuple to = {};

	if (!out || !in)
		return 0;
	s->lock = LOCKED;
	r->handle = m->handle;
	r->right_anchor = m->right_anchor;
	r->peer_delta = be32_of(m->delta) + delta_of(in, m);
	clock_gathered(r, m);
	r->in_window_shift = (s32)m->window_scale - (s32)known_scale(s, SIDE_RIGHT);
	be32 next = r->chain_length ? r->chain[0] : r->right_anchor;
	u32 hop = subsession_to(p, config, next, s->home, &r->out_key, &to);
	if (!hop) {
		lock_abandon(s, r, nonce, REFUSED_NO_ROUTE);
		return 0;
	}
	r->new_out.to = to;
	r->new_next_hop = hop;
	r->new_in = reversed(&to);
	if (new_path_entry(x, r, nonce, SIDE_RIGHT)) {
		lock_abandon(s, r, nonce, REFUSED_BUSY);
		return 0;
	}
	new_path_offer(r, out);
	r->phase = PHASE_HANDSHAKE;
	tell(EVENT_NEW_PATH_SYN, nonce, r->txid, r->right_anchor, SIDE_RIGHT);
	return new_path_syn(p, nonce);
}

/* Right anchor: the SYN has come.  Answers with SYN-ACK and, at once, an ACK whose window is scaled: the SYN-ACK's
 * is not, and a warm sender's first flight would overrun it at a strict firewall. */
INLINE int new_path_accept(struct packet *p, struct scratch *x, const struct five_tuple *key)
{
	struct segment *syn = &x->segment;
	struct setup_lists *l = &x->lists;
	u64 nonce = l->new_path.handle;
	struct reconfig_key record = { nonce, SIDE_LEFT, 0 };
	struct reconfig *r = port_reconfig(&record);
	struct session *s = port_session(&nonce);

	if (!r || !s || r->txid != l->new_path.txid) {
		port_count(COUNT_DROP_STALE_TXID);
		return VERDICT_DROP;
	}
	struct entry *out = port_egress(&r->out_key), *in = port_ingress(&r->old_in);
	if (!out || !in)
		return VERDICT_DROP;
	r->lock_ns = port_now(); /* a lease: the left anchor lives */
	if (r->phase == PHASE_LOCKING) {
		r->new_in = *key;
		r->named = ((struct message_header *)x->message)->nonce;
		r->new_out.to = reversed(key);
		r->isn_in = syn->seq;
		r->ts_in0 = r->ts_in_seen = syn->tsval;
		if (syn->timestamp_at)
			r->flags |= RECONFIG_TIMESTAMPS;
		r->in_window_shift = (s32)l->new_path.window_scale - (s32)known_scale(s, SIDE_LEFT);
		new_path_offer(r, out);
		r->new_next_hop = port_route(p, key->src, s->home ? key->dst : 0);
		if (!r->new_next_hop || new_path_entry(x, r, nonce, SIDE_LEFT))
			return VERDICT_DROP;
		r->phase = PHASE_HANDSHAKE;
	} else if (!same_tuple(key, &r->new_in) || r->phase > PHASE_READY || peer_is_ready(r)) {
		port_count(COUNT_DROP_STALE_TXID);
		return VERDICT_DROP;
	}
	struct frame_header f = { reversed(key), r->isn_out, r->isn_in + 1, TCP_SYN | TCP_ACK, HANDSHAKE_WINDOW };
	frame_start(x, &f);
	frame_syn_options(x, &s->offer[LEFTWARD], r->ts_out0, r->ts_in0);
	if (frame_finish(p, 0))
		return VERDICT_DROP;
	port_send_copy(p, r->new_next_hop);
	f.seq = r->isn_out + 1;
	f.flags = TCP_ACK;
	frame_start(x, &f);
	if (r->flags & RECONFIG_TIMESTAMPS)
		frame_timestamp(x, r->ts_out0, r->ts_in0);
	if (frame_finish(p, 0))
		return VERDICT_DROP;
	return port_redirect(p, r->new_next_hop);
}

/* Left anchor: the SYN-ACK has come; it is answered here and goes no further. */
INLINE int new_path_confirm(struct packet *p, struct scratch *x, struct reconfig *r)
{
	struct segment *syn_ack = &x->segment;
	struct entry *out = port_egress(&r->out_key);

	if (!out || syn_ack->ack != r->isn_out + 1)
		return VERDICT_DROP;
	port_lock(r);
	u32 cancelled = r->flags & RECONFIG_CANCEL; /* too late */
	if (r->phase == PHASE_HANDSHAKE && !(r->flags & (RECONFIG_SYN_ACK | RECONFIG_CANCEL))) {
		r->isn_in = syn_ack->seq;
		r->ts_in0 = r->ts_in_seen = syn_ack->tsval;
		r->flags |= RECONFIG_SYN_ACK | (syn_ack->timestamp_at ? RECONFIG_TIMESTAMPS : 0);
	}
	port_unlock(r);
	if (cancelled || peer_is_ready(r))
		return VERDICT_DROP;
	return new_path_ack(p, x, r) ? VERDICT_DROP : port_redirect(p, r->new_next_hop);
}

#endif
