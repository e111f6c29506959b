/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Betas carried by timestamps, and timestamps that no end host may notice (paper III-E as docs/protocol.md amends it).
 *
 * On the new path TSval is ts_out0 until the cutoff is fixed, then ts_out0 + beta until the other anchor has echoed
 * that value, then the sender's own plus beta.  The first segment with bytes therefore tells beta.  Each anchor
 * echoes on the wire what it has itself received, and gives its end host only echoes of what that host has sent.
 * TSval as delivered never falls behind what was delivered last, from either path: Linux would drop the segment.
 * Nor does TSecr: the slower path's is older, and if the local side is an anchor that has settled it would take away
 * a beta that was not in it yet.
 */
#ifndef DYSCO_TIMESTAMPS_H
#define DYSCO_TIMESTAMPS_H
#include "segment.h"

struct out_timestamps {
	u32 old_tsecr;          /* the old path's peer only gets echoes of its own values */
	u32 new_tsval, new_tsecr;
};

/* The constant that this anchor writes on the new path until it is echoed. */
INLINE u32 ts_held_out(const struct reconfig *r) { return r->ts_out0 + r->beta_out; }
INLINE u32 ts_held_in(const struct reconfig *r) { return r->ts_in0 + r->beta_in; }

INLINE void timestamps_out(struct out_timestamps *ts, struct reconfig *r, const struct segment *s, int bytes_on_new)
{
	if (s->timestamp_at && s->flags & TCP_ACK && seq_after(s->tsecr, r->ts_delivered))
		r->ts_old_seen = s->tsecr; /* not of the new path: an anchor beyond has been told a beta that has not come by here yet */
	ts->old_tsecr = seq_after(s->tsecr, r->ts_old_seen) && r->phase >= PHASE_READY ? r->ts_old_seen : s->tsecr;
	if (r->flags & RECONFIG_BETA_OUT) {
		ts->new_tsval = s->tsval + r->beta_out;
	} else {
		ts->new_tsval = ts_held_out(r); /* beta_out is 0 until the cutoff is fixed */
		if (bytes_on_new && r->ts_held == r->ts_out0)
			r->ts_held = s->tsval;
	}
	u32 floor = r->flags & RECONFIG_BETA_IN ? ts_held_in(r) : r->ts_in0;
	ts->new_tsecr = floor;
	r->flags &= ~(u32)RECONFIG_OWN_LEVEL;
	if (!(r->flags & RECONFIG_TS_OFFSET) || !(r->flags & RECONFIG_BETA_IN))
		return;
	u32 echo = s->tsecr - r->ts_offset + r->beta_in; /* what a proxy has said last may be later than anything from beyond it */
	ts->new_tsecr = seq_max(floor, r->flags & RECONFIG_CLOCKS ? seq_min(echo, r->ts_in_seen) : echo);
	r->flags |= ts->new_tsecr == echo ? RECONFIG_OWN_LEVEL : 0;
}

/* Raises a TSval to what was delivered last. */
INLINE u32 ts_deliver(struct reconfig *r, u32 tsval)
{
	r->ts_delivered = seq_max(r->ts_delivered, tsval);
	return r->ts_delivered;
}

/* Raises the TSecr of a segment that is delivered to what was delivered last. */
INLINE void echo_deliver(struct reconfig *r, const struct segment *s, u32 *tsecr, int on_new)
{
	if (!s->timestamp_at || !(s->flags & TCP_ACK))
		return;
	if (on_new || seq_after(*tsecr, r->ts_echoed))
		r->flags &= ~(u32)RECONFIG_ECHO_LEVEL;
	r->ts_echoed = seq_max(r->ts_echoed, *tsecr);
	if (on_new && !seq_before(s->tsecr - r->beta_out, r->ts_echoed)) /* as the entries will deliver it */
		r->flags |= RECONFIG_ECHO_LEVEL;
	*tsecr = r->ts_echoed;
}

INLINE void timestamps_in_old(struct reconfig *r, const struct segment *s, u32 *tsval)
{
	if (!s->timestamp_at)
		return;
	r->ts_old_seen = seq_max(r->ts_old_seen, *tsval);
	if (seq_after(*tsval, r->ts_delivered))
		r->flags &= ~(u32)RECONFIG_TS_LEVEL;
	*tsval = ts_deliver(r, *tsval);
}

/* The TSecr that arrived on the new path, as an echo of what the local stack sent; notes when beta is confirmed. */
INLINE u32 ts_echo(struct reconfig *r, const struct segment *s)
{
	if (r->flags & RECONFIG_CUTOFF && s->tsecr == ts_held_out(r)) {
		/* a beta of 0 changes nothing on the wire: only an acknowledged byte proves that it arrived */
		if (r->beta_out || seq_after(s->ack, r->isn_out + 1))
			r->flags |= RECONFIG_BETA_OUT | RECONFIG_ECHOED;
		return r->ts_held;
	}
	/* the first may be under way still when a message has told that the beta is known */
	if (s->tsecr == r->ts_out0 || !(r->flags & RECONFIG_BETA_OUT))
		return r->ts_out0;
	r->flags |= RECONFIG_ECHOED;
	return s->tsecr - r->beta_out;
}

INLINE void timestamps_in_new(struct reconfig *r, const struct segment *s, u32 *tsval, u32 *tsecr)
{
	if (!s->timestamp_at)
		return;
	*tsecr = ts_echo(r, s);
	r->ts_in_seen = seq_max(r->ts_in_seen, s->tsval);
	if (s->length && !(r->flags & RECONFIG_BETA_IN)) {
		r->beta_in = s->tsval - r->ts_in0;
		r->flags |= RECONFIG_BETA_IN;
	}
	/* what is held says nothing of the time, nor does the handshake's, once more (new_path_assert) */
	if (!(r->flags & RECONFIG_BETA_IN) || s->tsval == ts_held_in(r) || s->tsval == r->ts_in0) {
		*tsval = r->ts_delivered;
		return;
	}
	u32 real = s->tsval - r->beta_in;
	if (!(r->flags & RECONFIG_TS_OFFSET)) {
		r->ts_offset = r->ts_delivered - real;
		r->flags |= RECONFIG_TS_OFFSET;
	}
	if (r->flags & RECONFIG_CLOCKS && seq_before(real + r->ts_offset, r->ts_delivered))
		r->ts_offset = r->ts_delivered - real;
	if (!seq_before(real + r->ts_offset, r->ts_delivered))
		r->flags |= RECONFIG_TS_LEVEL;
	*tsval = ts_deliver(r, real + r->ts_offset);
}

/* Whether no timestamp of the new path, not even one that is held, falls behind what has been delivered, and no echo, here or
 * there, behind an earlier one: entries do not raise them as this file does, and a stack would drop the segment. */
INLINE int ts_level(const struct reconfig *r)
{
	return r->flags & RECONFIG_ECHO_LEVEL && r->flags & RECONFIG_OWN_LEVEL &&
	       (r->flags & RECONFIG_TS_LEVEL || r->ts_in0 + r->ts_offset == r->ts_delivered);
}

#endif
