/* SPDX-License-Identifier: Apache-2.0 */
/* An anchor while a reconfiguration rules the session: core/twopaths.h, timestamps.h and anchor.h, function by function,
 * with their names.  Not here: windows, SACK blocks, resets.  What is of host or anchor i has [i]; 0 is the left one. */

typedef Record {        /* struct reconfig */
	byte phase;
	bool syn_ack, cutoff, first_new, beta_in_known, beta_out_known, peer_cutoff_known, drained, echoed, caught_up;
	short peer_delta, ts_offset;
	byte isn_out, isn_in, old_sent, old_sent_acked, old_rcvd, old_rcvd_acked, first_new_rcvd, peer_cutoff;
	byte beta_out, beta_in, ts_out0, ts_in0, ts_held, ts_delivered, ts_old_seen, ack_delivered, expected
};

typedef Translation {   /* of the settled path, outward; what arrives gets the opposite */
	short seq_delta, ack_delta, tsval_delta, tsecr_delta
};

Record r[2];
Translation to[2];
byte path_of[2];        /* the path that `to` is about: the old one, while there is a record */

#define OLD(i) path_of[i]
#define NEW(i) (1 - path_of[i])

/* struct out_plan, in_plan: no part of the state */
hidden byte plan_old, plan_new, drop, answer, advances;
hidden byte old_bytes, past, seq_old, seq_new, ack_old, ack_new, old_tsecr, new_tsval, new_tsecr, ack, shown;

/* ---- both directions ---- */

#define drained_sending(i) (r[i].cutoff && r[i].old_sent_acked >= r[i].old_sent)
#ifdef BROKEN_COMPLETION        /* "the first byte received on the new path is not a reliable indication" */
#define drained_receiving(i) (r[i].old_rcvd_acked == r[i].old_rcvd && (r[i].first_new || r[i].peer_cutoff_known))
#else
#define drained_receiving(i) (r[i].old_rcvd_acked == r[i].old_rcvd && \
	((r[i].first_new && r[i].old_rcvd == r[i].first_new_rcvd) || \
	 (r[i].peer_cutoff_known && r[i].old_rcvd == r[i].peer_cutoff)))
#endif
#define drained_check(i) r[i].drained = r[i].drained || \
	(r[i].phase >= READY && drained_sending(i) && drained_receiving(i))

inline cutoff_fix(i, high)
{
	if
	:: !r[i].cutoff ->
		r[i].old_sent = high;
		r[i].beta_out = high - (r[i].isn_out + 1);
		r[i].cutoff = true
	:: else
	fi
}

/* What is added to sequence numbers: beta, as is told. */
#ifdef BROKEN_GAP       /* as before there were betas: only an inserted middlebox minds */
#define beta_out_used(i) 0
#define beta_in_used(i) 0
#else
#define beta_out_used(i) r[i].beta_out
#ifdef BROKEN_BETA      /* taken off, but not added again */
#define beta_in_used(i) 0
#else
#define beta_in_used(i) r[i].beta_in
#endif
#endif
#define new_start(i) (r[i].isn_in + 1 + r[i].peer_delta + r[i].beta_in)
#define ts_held_out(i) (r[i].ts_out0 + r[i].beta_out)
#define ts_held_in(i) (r[i].ts_in0 + r[i].beta_in)

/* ---- what the host sends: s_... as it wrote it, `high` what it had sent before ---- */

inline old_rcvd_raise(i)
{
	r[i].old_rcvd = MAX(r[i].old_rcvd, (r[i].first_new -> MIN(s_ack, r[i].first_new_rcvd) : s_ack))
}

#ifdef BROKEN_CUTOFF
#define below_cutoff(past, cutoff) (past <= cutoff + 1)
#else
#define below_cutoff(past, cutoff) (past <= cutoff)
#endif

inline plan_data(i)
{
	old_bytes = 0;
	past = s_seq + s_length;
	if
	:: r[i].phase == READY && s_length && past > high -> cutoff_fix(i, high)
	:: else
	fi;
	if
	:: !s_length
	:: s_length && (r[i].phase < READY || !r[i].cutoff || below_cutoff(past, r[i].old_sent)) ->
		plan_old = true;
		old_bytes = s_length
	:: else ->
		if
		:: s_seq >= r[i].old_sent -> plan_new = true
		:: else ->
			plan_old = true;
			plan_new = true;
			old_bytes = r[i].old_sent - s_seq
		fi
	fi
}

#define old_lives(i) (!r[i].drained && r[i].phase < SETTLING)

inline plan_ack(i)
{
	if
	:: r[i].phase < READY -> plan_old = true
	:: r[i].phase >= READY && s_ack > r[i].old_rcvd ->
		plan_new = true;
		plan_old = plan_old || (old_lives(i) && r[i].old_rcvd > r[i].old_rcvd_acked)
	:: r[i].phase >= READY && s_ack <= r[i].old_rcvd && (s_ack > r[i].old_rcvd_acked || !s_length) ->
		plan_old = plan_old || old_lives(i);
		plan_new = plan_new || r[i].first_new || !old_lives(i)
	:: else
	fi
}

inline plan_numbers(i)
{
#ifdef BROKEN_ACK
	ack_old = s_ack;
#else
	ack_old = MIN(s_ack, r[i].old_rcvd);
#endif
	ack_new = (s_ack <= r[i].old_rcvd -> r[i].isn_in + 1 : s_ack - r[i].peer_delta - beta_in_used(i))
}

#ifdef BROKEN_COPY      /* the acknowledgment of a segment sent again has its number, which is behind the window */
#define bare_seq s_seq
#else
#define bare_seq (s_length -> MAX(high, past) : s_seq)
#endif

inline plan_sequence(i)
{
	seq_old = (r[i].cutoff -> MIN(s_seq, r[i].old_sent) : s_seq);
	if
	:: old_bytes < s_length -> seq_new = s_seq + old_bytes - beta_out_used(i)
	:: old_bytes == s_length && !r[i].cutoff -> seq_new = r[i].isn_out + 1
	:: else -> seq_new = MAX(bare_seq, r[i].old_sent - 1) - beta_out_used(i)
	fi
}

#ifdef BROKEN_HELD      /* the clock runs on at once: beta cannot be read from it */
#define may_run(i) r[i].cutoff
#else
#define may_run(i) r[i].beta_out_known
#endif

inline timestamps_out(i)
{
	old_tsecr = (s_tsecr > r[i].ts_old_seen && r[i].phase >= READY -> r[i].ts_old_seen : s_tsecr);
	if
	:: may_run(i) -> new_tsval = s_tsval + r[i].beta_out
	:: else ->
		new_tsval = ts_held_out(i);
		if
		:: plan_new && old_bytes < s_length && r[i].ts_held == r[i].ts_out0 -> r[i].ts_held = s_tsval
		:: else
		fi
	fi;
	new_tsecr = r[i].ts_in0;
	if
	:: r[i].beta_in_known -> new_tsecr = MAX(ts_held_in(i), s_tsecr - r[i].ts_offset + r[i].beta_in)
	:: else
	fi
}

inline plan_out(i)
{
	plan_old = false;
	plan_new = false;
	old_rcvd_raise(i);
	r[i].expected = MAX(r[i].expected, s_ack);
	plan_data(i);
	plan_ack(i);
	plan_numbers(i);
	plan_sequence(i);
	timestamps_out(i);
	if
	:: plan_old -> r[i].old_rcvd_acked = MAX(r[i].old_rcvd_acked, MIN(s_ack, r[i].old_rcvd))
	:: else
	fi;
	drained_check(i)
}

inline anchor_egress(i)
{
	if
	:: r[i].phase == NONE ->
		put(i, path_of[i], segment, s_seq + to[i].seq_delta, s_length, s_ack + to[i].ack_delta,
		    s_tsval + to[i].tsval_delta, s_tsecr + to[i].tsecr_delta, s_byte)
	:: else ->
		plan_out(i);
		if
		:: plan_new -> put(i, NEW(i), segment, seq_new, s_length - old_bytes, ack_new, new_tsval, new_tsecr, s_byte + old_bytes)
		:: else
		fi;
		if
		:: plan_old -> put(i, OLD(i), segment, seq_old + to[i].seq_delta, old_bytes, ack_old + to[i].ack_delta,
				   s_tsval + to[i].tsval_delta, old_tsecr + to[i].tsecr_delta, s_byte)
		:: else
		fi
	fi
}

/* ---- what arrives: s_... as it was on the wire, d_... as the host gets it ---- */

inline ack_deliver(i)
{
	advances = d_ack > r[i].ack_delivered;
	d_ack = MAX(d_ack, r[i].ack_delivered);
	r[i].ack_delivered = d_ack
}

#ifdef BROKEN_PROBE     /* one less than expected is a probe, whatever it acknowledges */
#define is_probe(i) (d_seq + 1 == r[i].expected)
#else
#define is_probe(i) (d_seq + 1 == r[i].expected && !advances)
#endif

inline bare_ack_place(i)
{
	if
	:: !s_length && d_seq < r[i].expected && !is_probe(i) -> d_seq = r[i].expected
	:: else
	fi
}

inline ts_deliver(i, tsval)
{
	r[i].ts_delivered = MAX(r[i].ts_delivered, tsval);
	d_tsval = r[i].ts_delivered
}

inline plan_in_start(i)
{
	d_seq = s_seq - to[i].ack_delta;
	d_ack = s_ack - to[i].seq_delta;
	d_tsval = s_tsval - to[i].tsecr_delta;
	d_tsecr = s_tsecr - to[i].tsval_delta
}

#ifdef BROKEN_ANSWER    /* what a segment that goes no further acknowledges is noted, but the host never hears of it */
#define note_ack true
#else
#define note_ack !answer
#endif

inline plan_in_old(i)
{
	plan_in_start(i);
	past = d_seq + s_length;
	r[i].old_rcvd = (s_length -> MAX(r[i].old_rcvd, past) : r[i].old_rcvd);
	answer = r[i].phase >= READY && s_length && past <= r[i].old_rcvd_acked;
	drop = answer;
	if
	:: note_ack ->
		r[i].old_sent_acked = MAX(r[i].old_sent_acked, d_ack);
		ack_deliver(i)
	:: else
	fi;
	r[i].ts_old_seen = MAX(r[i].ts_old_seen, d_tsval);
	r[i].caught_up = r[i].caught_up && d_tsval <= r[i].ts_delivered;
	ts_deliver(i, d_tsval);
	bare_ack_place(i);
	drained_check(i)
}

inline plan_in_handshake(i)
{
	if
	:: r[i].phase == HANDSHAKE && (i == 1 || r[i].syn_ack) ->
		r[i].phase = READY;
		drop = !s_length
	:: else -> drop = r[i].phase < READY
	fi
}

inline ts_echo(i)
{
	if
	:: r[i].cutoff && s_tsecr == ts_held_out(i) ->
		if
		:: r[i].beta_out || s_ack > r[i].isn_out + 1 ->
			r[i].beta_out_known = true;
			r[i].echoed = true
		:: else
		fi;
		d_tsecr = r[i].ts_held
	:: !(r[i].cutoff && s_tsecr == ts_held_out(i)) && (s_tsecr == r[i].ts_out0 || !r[i].beta_out_known) ->
		d_tsecr = r[i].ts_out0
	:: else ->
		r[i].echoed = true;
		d_tsecr = s_tsecr - r[i].beta_out
	fi
}

inline timestamps_in_new(i)
{
	ts_echo(i);
	if
	:: s_length && !r[i].beta_in_known ->
		r[i].beta_in = s_tsval - r[i].ts_in0;
		r[i].beta_in_known = true
	:: else
	fi;
	if
	:: !r[i].beta_in_known || s_tsval == ts_held_in(i) -> d_tsval = r[i].ts_delivered
	:: else ->
		d_tsval = s_tsval - r[i].beta_in + r[i].ts_offset;
		r[i].caught_up = d_tsval >= r[i].ts_delivered;
		ts_deliver(i, d_tsval)
	fi
}

inline plan_in_new_ack(i)
{
	ack = s_ack + beta_out_used(i);
	shown = r[i].old_sent_acked;
	if
	:: !r[i].cutoff -> drop = drop || !s_length     /* it can only be the ack of the start */
	:: r[i].cutoff && ack > r[i].old_sent ->
		r[i].old_sent_acked = MAX(r[i].old_sent_acked, r[i].old_sent);
		shown = ack
	:: else
	fi;
	d_ack = shown
}

inline plan_in_new(i)
{
	plan_in_handshake(i);
	timestamps_in_new(i);
	d_seq = (r[i].beta_in_known -> s_seq + r[i].peer_delta + beta_in_used(i) : r[i].old_rcvd);
	if
	:: s_length ->
		r[i].first_new_rcvd = (r[i].first_new -> MIN(r[i].first_new_rcvd, d_seq) : d_seq);
		r[i].first_new = true
	:: else
	fi;
	plan_in_new_ack(i);
	ack_deliver(i);
	bare_ack_place(i);
	drained_check(i)
}

/* When nothing is left to learn the entries take the new translation. */
#ifdef BROKEN_SETTLE    /* TSvals may still be held, or behind what the old path has brought last */
#define clock_ready(i) true
#else
#define clock_ready(i) r[i].caught_up
#endif

inline settle(i, waited)
{
	if
	:: r[i].phase == SETTLING && r[i].beta_in_known && r[i].beta_out_known &&
	   (waited || ((!r[i].beta_out || r[i].echoed) && clock_ready(i))) ->
		to[i].seq_delta = 0 - beta_out_used(i);
		to[i].ack_delta = 0 - r[i].peer_delta - beta_in_used(i);
		to[i].tsval_delta = r[i].beta_out;
		to[i].tsecr_delta = r[i].beta_in - r[i].ts_offset;
		path_of[i] = NEW(i);
		record_drop(i)
	:: else
	fi
}

inline anchor_ingress(i, path)
{
	answer = false;
	drop = false;
	if
	:: path == path_of[i] && r[i].phase == NONE -> plan_in_start(i)
	:: path == path_of[i] && r[i].phase != NONE && r[i].phase < SETTLING -> plan_in_old(i)
	:: path != path_of[i] && r[i].phase >= HANDSHAKE -> plan_in_new(i)
	:: else ->      /* a tombstone: nothing that falls on it may matter */
		assert(!s_length || s_byte + s_length + OFFSET(i) <= host[i].rcv_nxt);
		drop = true
	fi;
	if
	:: answer -> put(i, path, segment, s_ack, 0, r[i].old_rcvd_acked + to[i].ack_delta, s_tsecr, s_tsval, 0)
	:: else
	fi;
	if
	:: !drop -> host_receives(i)
	:: else
	fi;
	if
	:: path != path_of[i] && r[i].phase == SETTLING -> settle(i, false)
	:: else
	fi
}
