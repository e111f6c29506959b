/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Two sessions want one five-tuple: which has it?
 *
 * A host that has been started anew, an old SYN that somebody plays again, two hosts that open at once.  What lives must not
 * end because of a SYN, and what is over must not stand in the way.
 */
#ifndef DYSCO_CONTEST_H
#define DYSCO_CONTEST_H
#include "frame.h"
#include "session.h"

/* What becomes of a SYN whose five-tuple another session has here. */
enum contest { CONTEST_WON, CONTEST_LOST, CONTEST_ALIVE };

/* That one may be over, or never have been answered: it makes room.  If both hosts open at once each agent gets the other's SYN
 * while its own is out: the lower nonce goes on, on both sides, and TCP answers it.  One that lives stays. */
INLINE enum contest five_tuple_contest(const struct entry *taken, u64 nonce)
{
	u64 old = taken->nonce;
	struct session *s = port_session(&old);

	if (!s || s->over_ns)
		return CONTEST_WON;
	if (s->offer[LEFTWARD].has & OFFER_SEEN)
		return CONTEST_ALIVE;
	return taken->side == SIDE_RIGHT && old < nonce ? CONTEST_LOST : CONTEST_WON;
}

/* A SYN for a five-tuple whose session lives: does its left neighbour know?  It gets the last acknowledgment once more.  One
 * that has the session takes no notice; a host that has forgotten it answers with a reset, which ends it here too, and the
 * next SYN finds room (as in TCP, RFC 5961 4.2). */
NOINLINE int session_challenge(struct packet *p, u64 nonce)
{
	struct scratch *x = port_scratch();
	struct session *s = port_session(&nonce);

	if (!x || !s || !p)
		return VERDICT_DROP;
	int wire = s->left_sub.dport != 0;
	struct five_tuple out_key = wire ? reversed(&s->left_tuple) : s->right_tuple;
	struct five_tuple in_key = wire ? s->left_sub : reversed(&s->right_sub);
	struct entry *out = port_egress(&out_key), *in = port_ingress(&in_key);
	if (!out || !in || out->slow)
		return VERDICT_DROP;
	const struct seen *from = wire ? &out->seen : &in->seen, *back = wire ? &in->seen : &out->seen;
	struct frame_header f = { reversed(wire ? &in_key : &out_key), from->seq_high, from->ack, TCP_ACK,
				  from->has & SEEN_UNSCALED ? 0 : from->window };
	u32 tsval = from->tsval, tsecr = back->tsval, hop = wire ? out->next_hop : 0;
	if (wire) {
		f.seq += out->to.seq_delta;
		f.ack += out->to.ack_delta;
		f.window = shift_window(f.window, out->to.window_shift);
		tsval += out->to.tsval_delta;
		tsecr += out->to.tsecr_delta;
	}
	frame_start(x, &f);
	if (s->offer[LEFTWARD].has & OFFER_TIMESTAMP)
		frame_timestamp(x, tsval, tsecr);
	if (frame_finish(p, 0))
		return VERDICT_DROP;
	if (!wire)
		return port_deliver(p);
	hop = hop ? hop : port_route(p, f.tuple.dst, 0);
	return hop ? port_redirect(p, hop) : VERDICT_DROP;
}

#endif
