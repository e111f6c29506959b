/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The slow path of an anchor while a reconfiguration rules a session: carries out what twopaths.h decides. */
#ifndef DYSCO_ANCHOR_H
#define DYSCO_ANCHOR_H
#include "newpath.h"
#include "translate.h"
#include "twopaths.h"

INLINE struct reconfig *record_of(const struct entry *e)
{
	struct reconfig_key key = { e->nonce, e->side, 0 };
	return port_reconfig(&key);
}

/* ---- what the local side sends ---- */

/* The header as the old path gets it. */
INLINE void header_for_old(struct segment *s, const struct entry *e, const struct out_plan *plan)
{
	const struct translation *to = &e->to;
	struct wire_tcp *tcp = segment_tcp(s);

	segment_set_tuple(s, &to->to);
	tcp->seq = be32_of(plan->seq_old + to->seq_delta);
	if (s->flags & TCP_ACK)
		tcp->ack = be32_of(plan->ack_old + to->ack_delta);
	tcp->window = be16_of(shift_window(plan->window_old, to->window_shift));
	segment_set_timestamp(s, s->tsval + to->tsval_delta, plan->ts.old_tsecr + to->tsecr_delta);
	u32 low = plan->sack_low;
	segment_clip_sack(s, to->ack_delta,
			  (struct sack_bounds){ plan->phase >= PHASE_READY, low - 0x40000000, low, plan->ack_old });
}

INLINE void header_for_new(struct segment *s, const struct reconfig *r, const struct out_plan *plan)
{
	struct wire_tcp *tcp = segment_tcp(s);

	segment_set_tuple(s, &r->new_out.to);
	tcp->seq = be32_of(plan->seq_new);
	if (s->flags & TCP_ACK)
		tcp->ack = be32_of(plan->ack_new);
	tcp->window = be16_of(plan->window_new);
	segment_set_timestamp(s, plan->ts.new_tsval, plan->ts.new_tsecr);
	/* A block at the start of the new path beside an ack of that start must not outlive the old path: delivered late,
	 * it would look like reneging.  Otherwise nothing shown begins before `high`, and nothing is hidden. */
	u32 high = plan->sack_high;
	segment_clip_sack(s, plan->sack_delta,
			  (struct sack_bounds){ 1, high, high + 0x40000000, plan->ack_is_start ? high : high - 1 });
}

/* Moves the header just written to the emission: a copy of payload bytes from..from+length will leave under it. */
INLINE void emission_take(struct scratch *x, u32 length, u32 cleared, u32 hop)
{
	struct segment *s = &x->segment;
	struct emission *m = &x->emission;

	segment_tcp(s)->flags &= (u8)~cleared;
	__builtin_memcpy(m->old, s->old, sizeof(m->old));
	__builtin_memcpy(m->new, s->new, sizeof(m->new));
	m->to.src = s->new_src;
	m->to.dst = s->new_dst;
	m->header = s->header;
	m->from = 0;
	m->grown = 0;
	m->length = length;
	m->payload = s->payload;
	m->full_checksum = 0;
	m->next_hop = hop;
	__builtin_memcpy(s->new, s->old, sizeof(s->new));
}

enum { NOT_ON_A_BARE_ACK = TCP_FIN | TCP_PSH | TCP_URG | TCP_CWR, NOT_ON_A_HEAD = TCP_FIN | TCP_PSH };

INLINE int leave_on(struct packet *p, u32 hop) { return segment_write(p) ? VERDICT_DROP : port_leave(p, hop); }

/* Both paths get something: a bare acknowledgment as a copy, or the two halves of a straddling segment. */
INLINE int leave_on_both(struct packet *p, struct scratch *x, struct entry *e, struct reconfig *r,
			 const struct out_plan *plan)
{
	struct segment *s = &x->segment;
	u32 head = plan->old_bytes;

	if (s->length && head == s->length) {
		header_for_new(s, r, plan);
		emission_take(x, 0, NOT_ON_A_BARE_ACK, r->new_next_hop);
		port_emit(p);
		header_for_old(s, e, plan);
		return leave_on(p, e->next_hop);
	}
	header_for_old(s, e, plan);
	emission_take(x, head, head ? NOT_ON_A_HEAD : NOT_ON_A_BARE_ACK, e->next_hop);
	if (!head) {
		port_emit(p);
	} else if (port_split(p, head)) { /* the head leaves, TCP sends the rest again */
		port_count(COUNT_SPLIT_FAILED);
		return VERDICT_DROP;
	} else {
		port_count(COUNT_SPLIT);
	}
	if (plan->park)
		return head ? VERDICT_DROP : port_park(p); /* what straddles is sent again */
	header_for_new(s, r, plan);
	if (head)
		header_advance(s->new, head);
	if (segment_write(p))
		return VERDICT_DROP;
	if (head && port_split_finish(p))
		return VERDICT_DROP;
	return port_leave(p, r->new_next_hop);
}

/* Sessions without timestamps: a bare acknowledgment with an option tells beta before the bytes that it places. */
NOINLINE int tell_beta(struct packet *p, u64 nonce, u32 side, u32 ack, u32 window)
{
	enum { HEADER = 20 + BETA_OPTION_BYTES };
	struct scratch *x = port_scratch();
	struct reconfig_key key = { nonce, side, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (!p || !x || !r)
		return -1;
	segment_set_tuple(&x->segment, &r->new_out.to);
	emission_take(x, 0, NOT_ON_A_BARE_ACK, r->new_next_hop);
	struct emission *m = &x->emission;
	m->grown = HEADER - (s32)m->header;
	m->header = HEADER;
	__builtin_memset(m->new + 20, 0, sizeof(m->new) - 20);
	struct wire_tcp *tcp = (struct wire_tcp *)m->new;
	tcp->data_offset = HEADER << 2;
	tcp->seq = be32_of(r->isn_out + 1);
	tcp->ack = be32_of(ack);
	tcp->window = be16_of(window);
	store32(m->new + 20, BETA_OPTION);
	store32(m->new + 24, r->beta_out);
	store32(m->new + 28, r->txid);
	port_emit(p);
	return 0;
}

/* When nothing is left to learn the entries take the new translation and the fast path has the session again.
 * `waited`: nothing that was sent before the old path ended is under way any more. */
INLINE void settle(struct reconfig *r, struct entry *out, struct entry *in, u64 nonce, u32 side, int waited)
{
	u32 all = RECONFIG_BETA_IN | RECONFIG_BETA_OUT | RECONFIG_EDGE | (r->beta_out && !waited ? RECONFIG_ECHOED : 0);

	if (r->flags & RECONFIG_TIMESTAMPS)
		all |= RECONFIG_TS_OFFSET;

	if (r->phase != PHASE_SETTLING || (r->flags & all) != all || r->flags & RECONFIG_PARK || !out || !in)
		return;
	if (r->flags & RECONFIG_TIMESTAMPS && !waited && !ts_level(r))
		return;
	in->to.seq_delta = r->peer_delta + r->beta_in;
	in->to.ack_delta = r->beta_out;
	in->to.tsval_delta = r->ts_offset - r->beta_in;
	in->to.tsecr_delta = 0 - r->beta_out;
	in->to.window_shift = r->in_window_shift;
	see(&in->seen, r->old_rcvd, 1, 0, 0, 0); /* what the old path has brought counts too */
	see(&in->seen, 0, 0, TCP_ACK, r->old_sent_acked, r->old_window);
	see_tsval(&in->seen, r->ts_delivered);
	out->to = r->new_out;
	out->to.seq_delta = 0 - r->beta_out;
	out->to.ack_delta = 0 - r->peer_delta - r->beta_in;
	out->to.tsval_delta = r->beta_out;
	out->to.tsecr_delta = r->beta_in - r->ts_offset;
	out->next_hop = r->new_next_hop;
	in->flags |= ENTRY_OPTIONS;
	out->flags |= ENTRY_OPTIONS;
	r->phase = PHASE_DONE;
	in->slow = 0;
	out->slow = 0;
	tell(EVENT_SETTLED, nonce, r->txid, 0, side);
}

/* Program: a segment leaves a session that is being reconfigured. */
INLINE int anchor_egress(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x || segment_read(p))
		return VERDICT_DROP;
	struct segment *s = &x->segment;
	struct five_tuple key = segment_tuple(s);
	struct entry *e = port_egress(&key);
	if (!e)
		return VERDICT_PASS;
	struct reconfig *r = record_of(e);
	if (!r || r->phase == PHASE_DONE || s->flags & TCP_SYN) {
		segment_translate(s, &e->to);
		return leave_on(p, e->next_hop);
	}
	u32 high = e->seen.seq_high;
	see(&e->seen, s->seq + s->length, s->length, s->flags, s->ack, s->window);
	if (s->timestamp_at)
		see_tsval(&e->seen, s->tsval);
	e->packets++;
	e->bytes += s->payload;
	struct out_plan *plan = (struct out_plan *)x->plan; /* not on the stack: the verifier would follow every decision */
	_Static_assert(sizeof(*plan) <= sizeof(x->plan), "room for a plan");
	__builtin_memset(plan, 0, sizeof(*plan));
	plan->was_parked = (u32)port_was_parked(p);
	u64 now = port_now();
	port_lock(r);
	plan_out(plan, r, s, high, now);
	port_unlock(r);
	if (plan->drained_now)
		tell(EVENT_DRAINED, e->nonce, r->txid, 0, e->side);
	if (plan->tell_beta)
		tell_beta(p, e->nonce, e->side, plan->ack_new, plan->window_new);
	if (plan->park && !plan->old)
		return port_park(p);
	if (plan->old && (plan->new || plan->park))
		return leave_on_both(p, x, e, r, plan);
	if (plan->new) {
		header_for_new(s, r, plan);
		return leave_on(p, r->new_next_hop);
	}
	if (!plan->old)
		return VERDICT_DROP;
	header_for_old(s, e, plan);
	return leave_on(p, e->next_hop);
}

/* ---- what arrives from either path ---- */

/* Acknowledges a segment on the path where it came: nobody else will do so any more. */
INLINE int answer_on_spot(struct packet *p, struct scratch *x, const struct entry *e, const struct five_tuple *key,
			  const struct reconfig *r, u32 ack)
{
	struct segment *s = &x->segment;
	struct entry *out = port_egress(&r->out_key);

	if (!out)
		return VERDICT_DROP;
	struct frame_header f = { reversed(key), s->ack, ack - e->to.seq_delta, TCP_ACK,
				  shift_window(out->seen.window, out->to.window_shift) };
	frame_start(x, &f);
	if (s->timestamp_at)
		frame_timestamp(x, s->tsecr, s->tsval);
	port_count(COUNT_ANSWERED_ON_SPOT);
	u32 hop = out->next_hop ? out->next_hop : port_route(p, f.tuple.dst, 0);
	if (frame_finish(p, 0) || !hop)
		return VERDICT_DROP;
	return port_redirect(p, hop);
}

/* Writes the segment as the local stack is to see it. */
INLINE int arrive(struct packet *p, struct segment *s, const struct entry *e, const struct in_plan *plan)
{
	struct wire_tcp *tcp = segment_tcp(s);

	segment_set_tuple(s, &e->to.to);
	tcp->seq = be32_of(plan->seq);
	if (s->flags & TCP_ACK)
		tcp->ack = be32_of(plan->ack);
	tcp->window = be16_of(plan->window);
	segment_set_timestamp(s, plan->tsval, plan->tsecr);
	/* A block that begins at the acknowledgment number delivered would look like a receiver that has changed its mind
	 * (Linux: reneging, then everything again); what it covers is acknowledged once the old path has drained. */
	u32 at = plan->ack - plan->sack_delta;
	segment_clip_sack(s, plan->sack_delta, (struct sack_bounds){ 1, at - 0x40000000, at + 0x40000000, at });
	return segment_write(p) ? VERDICT_DROP : VERDICT_PASS;
}

INLINE void plan_in_start(struct in_plan *plan, const struct segment *s, const struct entry *e, const struct reconfig *r,
			  int new_path)
{
	const struct translation *to = &e->to;

	plan->seq = s->seq + to->seq_delta;
	plan->ack = plan->ack_of_path = s->ack + to->ack_delta;
	plan->sack_delta = to->ack_delta;
	plan->window = shift_window(s->window, new_path ? r->in_window_shift : to->window_shift);
	plan->tsval = s->tsval + to->tsval_delta;
	plan->tsecr = s->tsecr + to->tsecr_delta;
}

/* Program: a segment arrives for a session that is being reconfigured. */
INLINE int anchor_ingress(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x || segment_read(p))
		return VERDICT_DROP;
	struct segment *s = &x->segment;
	struct five_tuple key = segment_tuple(s);
	struct entry *e = port_ingress(&key);
	struct reconfig *r = e ? record_of(e) : 0;
	if (!e)
		return VERDICT_PASS;
	if (told_late(s, e))
		return VERDICT_DROP;
	int new_path = r && r->phase >= PHASE_HANDSHAKE && r->phase != PHASE_DONE && same_tuple(&key, &r->new_in);
	if (new_path && s->flags & TCP_SYN)
		return r->flags & RECONFIG_LEFT_ANCHOR ? new_path_confirm(p, x, r) : VERDICT_DROP;
	if (r && r->phase != PHASE_DONE && s->flags & TCP_SYN && e->flags & ENTRY_OPTIONS)
		return VERDICT_DROP; /* of the new path before this, late: it was for this anchor alone */
	if (!r || r->phase == PHASE_DONE || s->flags & TCP_SYN) { /* a handshake's segment, repeated, is what it was */
		segment_translate(s, &e->to);
		return segment_write(p) ? VERDICT_DROP : VERDICT_PASS;
	}
	struct in_plan plan = {};
	u64 now = port_now();
	plan_in_start(&plan, s, e, r, new_path);
	struct entry *out = port_egress(&r->out_key);
	struct config *config = port_config();
	plan.sent_high = out ? out->seen.seq_high : 0;
	plan.throttle = config ? config->throttle : 0;
	port_lock(r);
	if (new_path)
		plan_in_new(&plan, r, s, now);
	else
		plan_in_old(&plan, r, s, now);
	port_unlock(r);
	if (!plan.drop) {
		see(&e->seen, plan.seq + s->length, s->length, s->flags,
		    new_path ? plan.ack : plan.ack_of_path, plan.window);
		see_tsval(&e->seen, plan.tsval);
	}
	e->packets++;
	e->bytes += s->payload;
	if (plan.ready_now)
		tell(EVENT_NEW_PATH_READY, e->nonce, r->txid, 0, e->side);
	if (plan.drained_now)
		tell(EVENT_DRAINED, e->nonce, r->txid, 0, e->side);
	if (plan.answer)
		return answer_on_spot(p, x, e, &key, r, plan.answer_ack);
	if (new_path && r->phase == PHASE_SETTLING)
		settle(r, out, e, e->nonce, e->side, 0);
	if (plan.drop)
		return VERDICT_DROP;
	return arrive(p, s, e, &plan);
}

#endif
