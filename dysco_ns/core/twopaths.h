/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which path does each byte and each acknowledgment take, and is the old path still needed? (paper III-F)
 *
 * Everything here is arithmetic on the record, in the local session's sequence space; it runs under the record's
 * lock and calls nothing.  Timestamps and betas are timestamps.h, what is done with the packet is anchor.h.
 */
#ifndef DYSCO_TWOPATHS_H
#define DYSCO_TWOPATHS_H
#include "sequence.h"
#include "timestamps.h"

/* What becomes of a segment that the local side sends. */
struct out_plan {
	u32 old, new;           /* send something on this path */
	u32 old_bytes;          /* sequence numbers of the segment that take the old path: all, none or a head */
	u32 seq_old;            /* local */
	u32 seq_new;            /* wire */
	u32 ack_old;            /* acknowledgment number on the old path, local */
	u32 ack_new;            /* on the new path, wire */
	u32 ack_is_start;       /* the new path only gets the ack of its start */
	u32 window_old, window_new;
	u32 sack_delta;         /* on the new path */
	u32 phase;
	u32 sack_low, sack_high;        /* blocks below sack_low belong to the old path, from sack_high on to the new */
	struct out_timestamps ts;
	u32 tell_beta;          /* no timestamp does */
	u32 was_parked;         /* given: it has waited already */
	u32 park;               /* the bytes for the new path wait */
	u32 drained_now;
};

INLINE int peer_scales(const struct reconfig *r) { return (s32)r->known_scale + r->in_window_shift > 0; }

/* Whether a window on the old path is one: not if it was said to firewalls there when it was a new one itself. */
INLINE int promises(const struct reconfig *r, u32 window) { return !(r->flags & RECONFIG_BROUGHT_IN && window == WINDOW_OPEN); }
INLINE int says_nothing(const struct reconfig *r, const struct segment *s)
{
	return (peer_scales(r) && s->window == WINDOW_OPEN) || !promises(r, s->window);
}

enum { OVERSHOOT = 1 << 20 }; /* windows keep their right edge when a proxy leaves, so a sender may be that far ahead */

/* The highest number received: what lies far beyond every window offered is a forgery, then only what is acknowledged counts. */
INLINE u32 believed(const struct reconfig *r, u32 high)
{
	return seq_after(high, r->edge_offered + OVERSHOOT) ? r->expected : high;
}

/* The start of what arrives on the new path, local.  Until beta_in is known (it is 0) the earliest that it can be. */
INLINE u32 new_start(const struct reconfig *r) { return r->isn_in + 1 + r->peer_delta + r->beta_in; }

/* A window that keeps its right edge when the acknowledgment number moves from `ack` to `shown`; unscaled. */
INLINE u32 window_shown(u32 window, u32 scale, u32 ack, u32 shown)
{
	s64 bytes = ((s64)window << (scale & 15)) + (s32)(ack - shown);

	if (bytes < 0)
		return 0;
	bytes >>= scale & 15;
	return bytes > 65535 ? 65535 : (u32)bytes;
}

INLINE int drained_sending(const struct reconfig *r)
{
	return r->flags & RECONFIG_CUTOFF && !seq_before(r->old_sent_acked, r->old_sent);
}

/* "oldRcvdAcked = oldRcvd and oldRcvd = firstNewRcvd"; a cutoff told in a message serves as firstNewRcvd too. */
INLINE int drained_receiving(const struct reconfig *r)
{
	if (r->old_rcvd_acked != r->old_rcvd)
		return 0;
	return (r->flags & RECONFIG_FIRST_NEW && r->old_rcvd == r->first_new_rcvd) ||
	       (r->flags & RECONFIG_PEER_CUTOFF && r->old_rcvd == r->peer_cutoff);
}

/* Notes completion; true once. */
INLINE u32 drained_check(struct reconfig *r, u64 now)
{
	if (r->flags & RECONFIG_DRAINED || r->phase < PHASE_READY || !drained_sending(r) || !drained_receiving(r))
		return 0;
	r->flags |= RECONFIG_DRAINED;
	r->drained_ns = now;
	return 1;
}

/* Fixes the cutoff: everything before `high` was or will be sent on the old path. */
INLINE void cutoff_fix(struct reconfig *r, u32 high)
{
	if (r->flags & RECONFIG_CUTOFF)
		return;
	r->old_sent = high;
	r->beta_out = high - (r->isn_out + 1);
	r->flags |= RECONFIG_CUTOFF;
}

/* What has been acknowledged below the first byte of the new path has come on the old one, whatever was noted. */
INLINE void old_rcvd_raise(struct reconfig *r, u32 ack)
{
	u32 old = r->flags & RECONFIG_FIRST_NEW ? seq_min(ack, r->first_new_rcvd) : ack;

	r->old_rcvd = seq_max(r->old_rcvd, old);
}

/* Data: predicate on byteSeq.  `high` is the highest number sent before this segment. */
INLINE void plan_data(struct out_plan *plan, struct reconfig *r, const struct segment *s, u32 high)
{
	u32 end = s->seq + s->length;

	plan->old_bytes = 0;
	if (!s->length)
		return;
	if (r->phase == PHASE_READY && seq_after(end, high))
		cutoff_fix(r, high);
	if (r->phase < PHASE_READY || !(r->flags & RECONFIG_CUTOFF) || !seq_after(end, r->old_sent)) {
		plan->old = 1;
		plan->old_bytes = s->length;
	} else if (!seq_before(s->seq, r->old_sent)) {
		plan->new = 1;
	} else {
		plan->old = plan->new = 1;
		plan->old_bytes = r->old_sent - s->seq;
	}
}

/* Acknowledgments: predicate on packetAck, and what the paper's table leaves out (duplicates, window updates). */
INLINE void plan_ack(struct out_plan *plan, struct reconfig *r, const struct segment *s)
{
	u32 old_lives = !(r->flags & RECONFIG_DRAINED) && r->phase < PHASE_SETTLING;

	if (s->flags & TCP_RST && r->phase >= PHASE_READY) {
		plan->old |= old_lives;
		plan->new = 1;
	}
	if (!(s->flags & TCP_ACK)) {
		plan->old |= old_lives;
		return;
	}
	if (r->phase < PHASE_READY) {
		plan->old = 1;
	} else if (seq_after(s->ack, r->old_rcvd)) {
		plan->new = 1;
		plan->old |= old_lives && seq_after(r->old_rcvd, r->old_rcvd_acked);
	} else if (seq_after(s->ack, r->old_rcvd_acked)) {
		plan->old |= old_lives;
		plan->new |= !!(r->flags & RECONFIG_FIRST_NEW) || !old_lives;
	} else if (!s->length) {
		plan->old |= old_lives;
		plan->new |= !!(r->flags & RECONFIG_FIRST_NEW) || !old_lives;
	}
}

INLINE void plan_numbers(struct out_plan *plan, struct reconfig *r, const struct segment *s, u32 scale)
{
	u32 start = new_start(r); /* without beta as long as it is unknown: window_base() */
	u32 window = s->window;

	r->edge_offered = seq_max(r->edge_offered, s->ack + (window << (scale & 15)));
	plan->ack_old = seq_min(s->ack, r->old_rcvd);
	plan->window_old = window_shown(window, scale, s->ack, plan->ack_old);
	plan->ack_is_start = !seq_after(s->ack, r->old_rcvd);
	if (plan->ack_is_start) {
		plan->ack_new = r->isn_in + 1;
		plan->window_new = window_shown(window, scale, s->ack, start);
	} else {
		plan->ack_new = s->ack - r->peer_delta - r->beta_in;
		plan->window_new = window;
	}
	if (scale && r->phase == PHASE_READY && !(r->flags & RECONFIG_DRAINED))
		plan->window_new = WINDOW_OPEN;
	plan->sack_low = r->old_rcvd;
	plan->sack_high = r->flags & RECONFIG_FIRST_NEW ? r->first_new_rcvd : r->old_rcvd + 1;
	plan->sack_delta = 0 - r->peer_delta - r->beta_in;
	plan->phase = r->phase;
}

/* Sequence numbers: a segment without bytes shows on each path the next one of that path; a probe one less.  So does the
 * copy of an acknowledgment that came with bytes, which may be old ones: `high` is the highest number sent before. */
INLINE void plan_sequence(struct out_plan *plan, const struct reconfig *r, const struct segment *s, u32 high)
{
	u32 fixed = r->flags & RECONFIG_CUTOFF, bytes = plan->old_bytes < s->length;
	u32 next = s->length ? seq_max(high, s->seq + s->length) : s->seq;

	plan->seq_old = fixed ? seq_min(s->seq, r->old_sent) : s->seq;
	if (bytes)
		plan->seq_new = s->seq + plan->old_bytes - r->beta_out;
	else if (!fixed)
		plan->seq_new = r->isn_out + 1;
	else
		plan->seq_new = seq_max(next, r->old_sent - 1) - r->beta_out;
}

/* The whole decision for a segment that the local side sends. */
INLINE void plan_out(struct out_plan *plan, struct reconfig *r, const struct segment *s, u32 high, u64 now)
{
	plan->old = plan->new = 0;
	if (s->flags & TCP_ACK) {
		old_rcvd_raise(r, s->ack);
		r->expected = seq_max(r->expected, s->ack);
	}
	plan_data(plan, r, s, high);
	plan_ack(plan, r, s);
	plan_numbers(plan, r, s, r->own_scale);
	plan_sequence(plan, r, s, high);
	u32 bytes_on_new = plan->new && s->length && plan->old_bytes < s->length;
	timestamps_out(&plan->ts, r, s, bytes_on_new);
	plan->tell_beta = bytes_on_new && !(r->flags & (RECONFIG_TIMESTAMPS | RECONFIG_BETA_OUT | RECONFIG_PARK));
	if (r->flags & RECONFIG_PARK && !plan->was_parked) { /* nothing but the handshake has gone on the new path: it can be cancelled */
		plan->park = bytes_on_new;
		r->parked += bytes_on_new && !plan->old_bytes ? s->length : 0; /* what straddles is dropped */
		plan->new = 0;
	}
	if (plan->old && s->flags & TCP_ACK)
		r->old_rcvd_acked = seq_max(r->old_rcvd_acked, plan->ack_old);
	plan->drained_now = drained_check(r, now);
}

/* What becomes of a segment that has arrived; local numbers. */
struct in_plan {
	u32 drop, answer;       /* answer: acknowledge it on the spot, on the path where it came */
	u32 answer_ack;
	u32 seq, ack, window;
	u32 ack_of_path;        /* what the segment said, before what is delivered was raised */
	u32 sack_delta;
	u32 tsval, tsecr;
	u32 news;               /* it acknowledges more than any before: no probe, it must arrive */
	u32 ready_now, first_now, drained_now;
	u32 sent_high;          /* given: the highest number that the local side has sent */
	u32 throttle;           /* given: struct config */
};

/* A window that was offered is not taken back, though the host that offered it may have left: Linux sends bare
 * acknowledgments from the edge of a window that has shrunk, the peer drops them as old, and if both sides do so
 * neither hears the other again.  What overshoots the real window is TCP's to repair.
 * While the old path lives the sender here is shown no more than the throttle.  (Not the sender at the other end of the old
 * path: that may be a proxy, with more in its buffers than it had been offered, and the path would never end.) */
INLINE void window_keep(struct in_plan *plan, struct reconfig *r)
{
	u32 scale = r->known_scale & 15, edge = plan->ack + (plan->window << scale);

	if (plan->throttle && !(r->flags & RECONFIG_DRAINED))
		edge = seq_min(edge, plan->ack + plan->throttle - 1);
	if (!seq_before(edge, r->edge_delivered)) {
		r->edge_delivered = edge;
		plan->window = (edge - plan->ack) >> scale;
		return;
	}
	u32 window = (r->edge_delivered - plan->ack) >> scale; /* up would be more than anybody has offered */
	plan->window = window > 65535 ? 65535 : window;
}

/* Whether the far end host itself offers what has been promised to the sender here. */
INLINE void window_judge(const struct in_plan *plan, struct reconfig *r)
{
	u32 edge = plan->ack + (plan->window << (r->known_scale & 15));

	if (seq_before(edge + (1u << (r->known_scale & 15)), r->edge_delivered)) /* its field is rounded */
		r->flags &= ~(u32)RECONFIG_EDGE;
	else
		r->flags |= RECONFIG_EDGE;
}

/* What is delivered never acknowledges less than what was delivered before: a stack drops segments whose
 * acknowledgment is older than a window (RFC 5961 5.2), and the old path's stay at the cutoff while the new path's
 * advance. */
INLINE void ack_deliver(struct in_plan *plan, struct reconfig *r)
{
	if (seq_before(plan->ack, r->ack_delivered)) {
		plan->ack = r->ack_delivered;
		plan->window = 0; /* window_keep() has the edge that was delivered */
	} else {
		plan->news = seq_after(plan->ack, r->ack_delivered);
		r->ack_delivered = plan->ack;
	}
	window_keep(plan, r);
}

/* A bare acknowledgment says on each path what that path sends next; the stack, which hears both, drops one that is
 * behind what it has received.  It gets the number that it expects.  (One less is a probe, which wants an answer.) */
INLINE void bare_ack_place(struct in_plan *plan, const struct reconfig *r, const struct segment *s)
{
	if (!s->length && !(s->flags & TCP_RST) && seq_before(plan->seq, r->expected - !plan->news))
		plan->seq = r->expected;
}

/* An acknowledgment of what was never sent is forged: it goes no further, and nothing of it is noted. */
INLINE int unsent_acknowledged(struct in_plan *plan, const struct segment *s, u32 ack)
{
	int forged = s->flags & TCP_ACK && seq_after(ack, plan->sent_high);

	plan->drop |= (u32)forged;
	return forged;
}

INLINE void plan_in_old(struct in_plan *plan, struct reconfig *r, const struct segment *s, u64 now)
{
	u32 end = plan->seq + s->length;

	if (unsent_acknowledged(plan, s, plan->ack))
		return;
	if (s->length && seq_after(end, r->old_rcvd))
		r->old_rcvd = seq_max(r->old_rcvd, believed(r, end));
	plan->answer = r->phase >= PHASE_READY && s->length && !seq_after(end, r->old_rcvd_acked);
	plan->answer_ack = r->old_rcvd_acked;
	plan->drop = plan->answer || r->phase >= PHASE_SETTLING;
	if (s->flags & TCP_ACK && !plan->drop) { /* what is dropped tells the stack nothing */
		u32 open = !promises(r, s->window) && !seq_before(plan->ack, r->ack_delivered);
		r->old_sent_acked = seq_max(r->old_sent_acked, plan->ack);
		plan->window = open ? 0 : plan->window;
		r->old_window = open ? r->old_window : plan->window;
		ack_deliver(plan, r);
		echo_deliver(r, s, &plan->tsecr, 0);
		plan->window = open ? WINDOW_OPEN : plan->window; /* for who is to read it */
	}
	timestamps_in_old(r, s, &plan->tsval);
	bare_ack_place(plan, r, s);
	plan->drained_now = drained_check(r, now);
}

/* The handshake's own segments end here: the left anchor's ACK, the right anchor's window. */
INLINE void plan_in_handshake(struct in_plan *plan, struct reconfig *r, const struct segment *s, u64 now)
{
	int may = r->flags & RECONFIG_LEFT_ANCHOR ? r->flags & RECONFIG_SYN_ACK : r->phase == PHASE_HANDSHAKE;

	if (r->phase == PHASE_HANDSHAKE && may) {
		r->phase = PHASE_READY;
		r->ready_ns = now;
		plan->ready_now = 1;
	}
	plan->drop = r->phase < PHASE_READY || (plan->ready_now && !s->length);
}

/* From where the window of a segment that acknowledges the start of the new path counts: who writes it before it knows our
 * beta counts from where the path would begin without.  What echoes no beta may be such a segment. */
INLINE u32 window_base(const struct reconfig *r, const struct segment *s)
{
	u32 unaware = r->flags & RECONFIG_TIMESTAMPS ? s->tsecr == r->ts_out0 : !(r->flags & RECONFIG_ECHOED);

	return s->ack == r->isn_out + 1 && unaware ? s->ack : s->ack + r->beta_out;
}

/* A handshake's acknowledgment that is repeated: its window is for firewalls. */
INLINE int of_handshake(const struct reconfig *r, const struct segment *s)
{
	return s->ack == r->isn_out + 1 && s->seq == r->isn_in + 1 && !s->length && s->window == WINDOW_OPEN;
}

INLINE void plan_in_new_ack(struct in_plan *plan, struct reconfig *r, const struct segment *s, u32 scale)
{
	u32 ack = s->ack + r->beta_out, shown = r->old_sent_acked;

	if (!(r->flags & RECONFIG_CUTOFF)) { /* it can only be the ack of the start: nothing is known of our data */
		plan->drop |= !s->length && !(s->flags & TCP_RST);
		plan->ack = shown;
		plan->window = r->old_window;
		return;
	}
	if (seq_after(ack, r->old_sent)) { /* completes the old path too */
		r->old_sent_acked = seq_max(r->old_sent_acked, r->old_sent);
		shown = ack;
	}
	if (of_handshake(r, s) || says_nothing(r, s))
		plan->window = 0;
	plan->ack = shown;
	plan->window = window_shown(plan->window, scale, window_base(r, s), shown);
}

/* Without timestamps a segment of its own goes before the first bytes of the new path, until they are acknowledged. */
INLINE void beta_told(struct in_plan *plan, struct reconfig *r, const struct segment *s)
{
	if (s->told == r->txid && !(r->flags & RECONFIG_BETA_IN)) {
		r->beta_in = s->beta;
		r->flags |= RECONFIG_BETA_IN;
	}
	plan->drop |= s->told == r->txid;
	if (!(r->flags & RECONFIG_TIMESTAMPS) && r->flags & RECONFIG_CUTOFF && s->flags & TCP_ACK &&
	    seq_after(s->ack, r->isn_out + 1))
		r->flags |= RECONFIG_BETA_OUT | RECONFIG_ECHOED;
}

INLINE void plan_in_new(struct in_plan *plan, struct reconfig *r, const struct segment *s, u64 now)
{
	if (r->flags & RECONFIG_CUTOFF && unsent_acknowledged(plan, s, s->ack + r->beta_out))
		return;
	plan_in_handshake(plan, r, s, now);
	beta_told(plan, r, s);
	timestamps_in_new(r, s, &plan->tsval, &plan->tsecr);
	plan->seq = r->flags & RECONFIG_BETA_IN ? s->seq + r->peer_delta + r->beta_in : r->old_rcvd;
	if (s->length && r->flags & RECONFIG_BETA_IN) {
		if (!(r->flags & RECONFIG_FIRST_NEW) || seq_before(plan->seq, r->first_new_rcvd))
			r->first_new_rcvd = plan->seq;
		r->flags |= RECONFIG_FIRST_NEW;
		if (!(r->flags & RECONFIG_FIRST_BYTE)) {
			r->flags |= RECONFIG_FIRST_BYTE;
			r->first_byte_ns = now;
			plan->first_now = 1;
		}
	} else if (s->length) {
		plan->drop = 1; /* no way to place it: what told its beta has got lost */
	}
	bare_ack_place(plan, r, s);
	if (s->flags & TCP_RST && plan->seq - r->expected <= r->edge_offered - r->expected)
		plan->seq = r->expected; /* it has overtaken what the old path still carries: the stack would doubt it (RFC 5961) */
	plan->sack_delta = r->beta_out;
	if (s->flags & TCP_ACK) {
		plan_in_new_ack(plan, r, s, r->known_scale);
		if (says_nothing(r, s))
			r->flags &= ~(u32)RECONFIG_EDGE; /* more of these may be under way: entries would pass them on */
		else if (!of_handshake(r, s))
			window_judge(plan, r);
		ack_deliver(plan, r);
	}
	if (!plan->drop)
		echo_deliver(r, s, &plan->tsecr, 1);
	plan->drained_now = drained_check(r, now);
}

#endif
