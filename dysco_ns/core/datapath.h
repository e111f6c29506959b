/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The life of a packet: what a host sends (egress) and what arrives (ingress), from the top.
 *
 * Each function here is one program.  The two fast ones answer NEXT_* when another program must go on; a backend
 * calls it (eBPF: tail call), and does nothing else.
 */
#ifndef DYSCO_DATAPATH_H
#define DYSCO_DATAPATH_H
#include "command.h"
#include "icmp.h"
#include "translate.h"

enum next_program {             /* verdicts of the fast programs beyond enum verdict */
	NEXT_SETUP_EGRESS = 16,
	NEXT_SETUP_INGRESS,
	NEXT_EDGE_EGRESS,
	NEXT_EDGE_INGRESS,
	NEXT_ANCHOR_EGRESS,
	NEXT_ANCHOR_INGRESS,
	NEXT_CONTROL,
	NEXT_LOCK,
	NEXT_ANSWER,
	NEXT_RELEASE,
	NEXT_EMIT,
	NEXT_TOMBSTONE,
	NEXT_ICMP,
};

/* A SYN that opens a session, not its answer. */
INLINE int opens(const struct wire_tcp *tcp) { return (tcp->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN; }

/* Program: a packet leaves. */
INLINE int egress(struct packet *p)
{
	struct headers h;

	if (headers_find(p, &h))
		return VERDICT_PASS;
	if (opens(h.tcp))
		return NEXT_SETUP_EGRESS;
	struct five_tuple key = headers_tuple(&h);
	struct entry *e = port_egress(&key);
	if (!e)
		return VERDICT_PASS;
	if (e->flags & (ENTRY_TOMBSTONE | ENTRY_PLAIN))
		return e->flags & ENTRY_PLAIN ? VERDICT_PASS : NEXT_TOMBSTONE;
	if (h.tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST))
		return NEXT_EDGE_EGRESS;
	if (e->slow)
		return NEXT_ANCHOR_EGRESS;
	if (translate(p, &h, e, 0))
		return VERDICT_DROP;
	return port_leave(p, e->next_hop);
}

/* A control segment says so in its first option. */
INLINE int is_control(const struct headers *h)
{
	be32 *option = (be32 *)(h->tcp + 1);

	return h->tcp->data_offset >= 0x60 && (void *)(option + 1) <= h->end && *option == CONTROL_OPTION;
}

/* Program: a packet arrives. */
INLINE int ingress(struct packet *p)
{
	struct headers h;

	if (headers_find(p, &h))
		return is_icmp(p) ? NEXT_ICMP : VERDICT_PASS;
	struct five_tuple key = headers_tuple(&h);
	struct entry *e = port_ingress(&key);
	if (!e || opens(h.tcp)) {
		if (h.tcp->data_offset >= 0x60 && (u8 *)(h.tcp + 1) + 4 > (u8 *)h.end) {
			if (port_pull(p, AT_OPTIONS + 4) || headers_at(p, &h))
				return VERDICT_PASS;
		}
		if (is_control(&h))
			return NEXT_CONTROL;
		return opens(h.tcp) ? NEXT_SETUP_INGRESS : VERDICT_PASS;
	}
	if (e->flags & ENTRY_TOMBSTONE) {
		port_count(COUNT_DROP_TOMBSTONE);
		return VERDICT_DROP;
	}
	if (h.tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST))
		return NEXT_EDGE_INGRESS;
	if (e->slow)
		return NEXT_ANCHOR_INGRESS;
	return translate(p, &h, e, 1) ? VERDICT_DROP : VERDICT_PASS;
}

/* A SYN without a message, for a five-tuple that a chain has used: its sender has given the chain up (bypass), or the
 * session is over.  The answer must not go back along the chain.  One that lives is left alone: anybody can send a SYN. */
INLINE void plain_syn(const struct segment *syn)
{
	struct five_tuple tuple = segment_tuple(syn), out_key = reversed(&tuple);
	struct entry *out = port_egress(&out_key);

	if (!out || out->side != SIDE_LEFT)
		return;
	u64 nonce = out->nonce;
	struct session *s = port_session(&nonce);
	struct five_tuple in_key = s ? s->left_sub : out_key;
	struct entry *in = port_ingress(&in_key);
	if (s && (s->over_ns || (in && !(in->seen.has & SEEN_ACK))))
		session_forget(s, nonce);
}

/* Program: a SYN arrives. */
INLINE int setup_ingress(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	if (!x || !config || segment_read(p))
		return VERDICT_PASS;
	struct segment *syn = &x->segment;
	if (!is_own(config, syn->old_dst))
		return VERDICT_PASS;
	if (!syn->payload) {
		plain_syn(syn);
		return VERDICT_PASS;
	}
	u32 reason = (u32)message_read(p, AT_TCP + syn->header, syn->payload, config);
	if (reason != COUNT_NONE) {
		port_count(reason);
		return reason == COUNT_PASS_FOREIGN_PAYLOAD ? VERDICT_PASS : VERDICT_DROP;
	}
	struct setup_message *m = (struct setup_message *)x->message;
	struct five_tuple key = segment_tuple(syn);
	if (m->header.type != MESSAGE_SETUP || !has_ports(&key) || !has_ports(&m->session) ||
	    setup_message_lists(x->message_length)) {
		port_count(COUNT_DROP_BAD_MESSAGE);
		return VERDICT_DROP;
	}
	if (x->lists.new_path.txid && !x->lists.chain_length)
		return new_path_accept(p, x, &key);
	return setup_arrived(p, x, config, &key);
}

/* A segment that arrives in the local session's space; one of a new path whose beta is not known yet counts as its first. */
INLINE u32 arriving_seq(const struct segment *s, const struct entry *e, const struct five_tuple *key)
{
	struct reconfig *r = e->slow ? record_of(e) : 0;

	if (!r || !same_tuple(key, &r->new_in) || r->phase < PHASE_HANDSHAKE)
		return s->seq + e->to.seq_delta;
	return r->flags & RECONFIG_BETA_IN ? s->seq + r->peer_delta + r->beta_in : r->old_rcvd;
}

/* Whether a FIN or reset may be the sender's own: anybody can send one, but only the sender knows what the receiver expects.
 * The stack judges exactly (RFC 5961 3.2); our tables only need to know whether to believe that the session is over.  A reset has
 * the number of what comes next, as the sender or the receiver sees it; a FIN may come after bytes that have got lost. */
enum { NEAR = 1 << 14, LOST_BEFORE_A_FIN = 1 << 17 };

INLINE int plausible(u32 number, u32 reset, u32 expected, const struct seen *sender)
{
	u32 high = sender->has & SEEN_SEQ ? seq_max(sender->seq_high, expected) : expected;

	if (reset)
		return number - expected + NEAR < 2 * NEAR || number - high + NEAR < 2 * NEAR;
	return number - expected <= high - expected + LOST_BEFORE_A_FIN;
}

INLINE int end_plausible(const struct segment *s, const struct session *session, const struct entry *e, int arriving)
{
	struct config *config = port_config();
	struct five_tuple key = segment_tuple(s), other;
	u32 reset = s->flags & TCP_RST, number = s->seq;

	if (!arriving && config && is_own(config, key.src))
		return 1; /* our own stack's */
	struct reconfig *r = e->slow && !arriving ? record_of(e) : 0;
	if (arriving) {
		other = e->side == SIDE_LEFT ? reversed(&session->left_tuple) : session->right_tuple;
		number = arriving_seq(s, e, &key);
	} else {
		other = e->side == SIDE_LEFT ? session->left_sub : reversed(&session->right_sub);
	}
	struct entry *receiver = arriving ? port_egress(&other) : port_ingress(&other);
	number += reset ? 0 : s->payload;
	if (r) /* acknowledgments come by two entries */
		return plausible(number, reset, r->ack_delivered, &e->seen);
	return !receiver || !(receiver->seen.has & SEEN_ACK) || plausible(number, reset, receiver->seen.ack, &e->seen);
}

/* What only one side has offered is not negotiated (RFC 2018, 3168, 7323). */
INLINE void negotiate(struct session *s)
{
	u8 options = OFFER_WINDOW_SCALE | OFFER_TIMESTAMP | OFFER_SACK | OFFER_ECN;
	u8 left_out = options & (u8)~(s->offer[RIGHTWARD].has & s->offer[LEFTWARD].has);

	for (u32 way = RIGHTWARD; way <= LEFTWARD; way++) {
		s->offer[way].has &= (u8)~left_out;
		if (left_out & OFFER_WINDOW_SCALE)
			s->offer[way].window_scale = 0;
	}
}

/* A host without an agent resets the SYN of a subsession.  If the policy says so the session goes without a chain; the
 * SYN will be repeated, and if it was the server that has refused, it will do so again. */
INLINE int refused_at_first(const struct segment *s, const struct entry *e)
{
	u64 nonce = e->nonce;
	struct session *session = s->flags & TCP_RST && e->side == SIDE_RIGHT ? port_session(&nonce) : 0;

	if (!session || !(session->flags & SESSION_BYPASS) || session->offer[LEFTWARD].has & OFFER_SEEN)
		return 0;
	struct five_tuple key = session->right_tuple;
	struct entry *out = port_egress(&key);
	if (out)
		setup_bypass(session, nonce, out);
	return 1;
}

/* A reset that cancels a new path ends at its right anchor. */
INLINE int cancels_new_path(const struct segment *s, const struct entry *e, const struct five_tuple *key)
{
	struct reconfig *r = e->slow && s->flags & TCP_RST ? record_of(e) : 0;

	return r && same_tuple(key, &r->new_in) && can_undo(r);
}

/* So does one that only tells middleboxes of the new path that the session is over, as both anchors know. */
INLINE int known_to_be_over(const struct segment *s, const struct entry *e)
{
	u64 nonce = e->nonce;
	struct session *session = s->flags & TCP_RST && (e->slow || e->flags & ENTRY_OPTIONS) ? port_session(&nonce) : 0;

	return session && session->over_ns;
}

/* SYN-ACK, FIN and RST change the session's record; then they are translated like any other segment.
 * `way` is the direction in which the segment travels. */
INLINE void edge_note(struct segment *s, struct entry *e, u32 way, int arriving)
{
	u64 nonce = e->nonce;
	struct session *session = port_session(&nonce);

	if (!session || (s->flags & (TCP_FIN | TCP_RST) && !end_plausible(s, session, e, arriving)))
		return;
	if (s->flags & TCP_SYN && !(session->offer[way & 1].has & OFFER_SEEN)) {
		session->offer[way & 1] = s->offer;
		negotiate(session);
		tell(EVENT_SESSION_ESTABLISHED, nonce, 0, 0, e->side);
	}
	u32 flag = s->flags & TCP_RST ? SESSION_RST : way == RIGHTWARD ? SESSION_FIN_RIGHTWARD : SESSION_FIN_LEFTWARD;
	if (s->flags & (TCP_FIN | TCP_RST) && !(session->flags & flag)) {
		session->flags |= flag;
		session_over(session);
		tell(s->flags & TCP_RST ? EVENT_SESSION_RST : EVENT_SESSION_FIN, nonce, 0, way, e->side);
	}
}

INLINE int edge(struct packet *p, struct entry *e, u32 way, int arriving)
{
	struct scratch *x = port_scratch();

	if (!x || !e || segment_read(p))
		return VERDICT_DROP;
	struct segment *s = &x->segment;
	struct five_tuple key = segment_tuple(s);
	if (arriving && (cancels_new_path(s, e, &key) || known_to_be_over(s, e)))
		return VERDICT_DROP;
	if (arriving && refused_at_first(s, e))
		return VERDICT_DROP;
	if (arriving && s->flags & TCP_SYN && e->flags & ENTRY_OPTIONS && !e->slow)
		return VERDICT_DROP; /* a new path's, late: it was for this anchor alone */
	edge_note(s, e, way, arriving);
	if (e->slow && !(s->flags & TCP_SYN && !arriving))
		return arriving ? NEXT_ANCHOR_INGRESS : NEXT_ANCHOR_EGRESS;
	if (s->timestamp_at) /* translate() finds it where segments without SYN have it */
		see_tsval(&e->seen, s->tsval + (arriving ? e->to.tsval_delta : 0));
	struct headers h;
	if (headers_find(p, &h) || translate(p, &h, e, arriving))
		return VERDICT_DROP;
	return arriving ? VERDICT_PASS : port_leave(p, e->next_hop);
}

INLINE struct five_tuple packet_tuple(struct packet *p)
{
	struct headers h;
	struct five_tuple none = {};

	return headers_find(p, &h) ? none : headers_tuple(&h);
}

/* Program: SYN-ACK, FIN or RST of a session leaves. */
INLINE int edge_egress(struct packet *p)
{
	struct five_tuple key = packet_tuple(p);
	struct entry *e = port_egress(&key);

	return e ? edge(p, e, e->side == SIDE_RIGHT ? RIGHTWARD : LEFTWARD, 0) : VERDICT_PASS;
}

/* Program: SYN-ACK, FIN or RST of a session arrives. */
INLINE int edge_ingress(struct packet *p)
{
	struct five_tuple key = packet_tuple(p);
	struct entry *e = port_ingress(&key);

	return e ? edge(p, e, e->side == SIDE_RIGHT ? LEFTWARD : RIGHTWARD, 1) : VERDICT_PASS;
}

/* A question that was signed for another agent, played to this one.  Where a NAT on the way has changed the destination it
 * cannot be told who was meant; answers are known by their transaction. */
INLINE int misaddressed(const struct control_message *m, be32 arrived_at)
{
	u64 nonce = m->header.nonce;

	if (m->to == arrived_at)
		return 0;
	struct session *s = port_session(&nonce);
	return !s || !(s->flags & SESSION_FORWARDED);
}

INLINE int is_question(u32 type)
{
	return type == MESSAGE_REQUEST_LOCK || type == MESSAGE_RELEASE || type == MESSAGE_CANCEL || type == MESSAGE_TRIGGER ||
	       type == MESSAGE_HEARTBEAT;
}

/* The right neighbour asks us to take it out of the session's chain, or for a new path to itself: once for each transaction,
 * and only for itself. */
INLINE void triggered(const struct control_message *m, const struct config *config, const struct five_tuple *key)
{
	u64 nonce = m->header.nonce;
	u32 txid = be32_of(m->txid);
	struct session *s = port_session(&nonce);
	struct five_tuple from = s ? leftward_tuple(config, &s->right_sub) : *key;

	if (!s || !same_tuple(&from, key) || m->right_anchor != s->right_sub.dst) {
		port_count(s ? COUNT_DROP_MISADDRESSED : COUNT_DROP_UNKNOWN_SESSION);
		return;
	}
	if (!transaction_new(s, txid)) {
		port_count(COUNT_DROP_STALE_TXID);
		return;
	}
	transaction_note(s, txid);
	tell(m->flags & CONTROL_RIGHT_OF ? EVENT_TRIGGER : EVENT_MOVED, nonce, txid, m->right_anchor, SIDE_RIGHT);
}

/* Program: a control segment arrives. */
INLINE int control_ingress(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	if (!x || !config || segment_read(p))
		return VERDICT_PASS;
	struct segment *s = &x->segment;
	if (!is_own(config, s->old_dst))
		return VERDICT_PASS; /* on its way to another agent */
	u32 reason = (u32)message_read(p, AT_TCP + s->header, s->payload, config);
	if (reason != COUNT_NONE || x->message_length != CONTROL_BYTES) {
		port_count(reason == COUNT_NONE || reason == COUNT_PASS_FOREIGN_PAYLOAD ? COUNT_DROP_BAD_MESSAGE : reason);
		return VERDICT_DROP;
	}
	port_count(COUNT_CONTROL_RECEIVED);
	struct control_message *m = control_message(x);
	if (is_question(m->header.type) && misaddressed(m, s->old_dst)) {
		port_count(COUNT_DROP_MISADDRESSED);
		return VERDICT_DROP;
	}
	struct five_tuple key = segment_tuple(s);
	switch (m->header.type) {
	case MESSAGE_REQUEST_LOCK: return NEXT_LOCK;
	case MESSAGE_ACK_LOCK:
	case MESSAGE_NACK_LOCK: return NEXT_ANSWER;
	case MESSAGE_RELEASE:
	case MESSAGE_ACK_RELEASE:
	case MESSAGE_CANCEL:
	case MESSAGE_ACK_CANCEL:
	case MESSAGE_HEARTBEAT:
	case MESSAGE_ALIVE: return NEXT_RELEASE;
	case MESSAGE_TRIGGER: triggered(m, config, &key); break;
	default: port_count(COUNT_DROP_BAD_MESSAGE);
	}
	return VERDICT_DROP;
}

/* Program: requestLock. */
INLINE int lock_step(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	if (!x || !config)
		return VERDICT_DROP;
	struct five_tuple key = segment_tuple(&x->segment);
	return lock_requested(p, x, config, &key);
}

/* Program: ackLock or nackLock. */
INLINE int answer_step(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	return x && config ? lock_answered(p, x, config) : VERDICT_DROP;
}

/* Program: release, cancel, heartbeat and their answers. */
INLINE int release_step(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	if (!x || !config)
		return VERDICT_DROP;
	struct five_tuple key = segment_tuple(&x->segment);
	switch (control_message(x)->header.type) {
	case MESSAGE_RELEASE: return release_arrived(p, x, config, &key);
	case MESSAGE_ACK_RELEASE: return release_answered(p, x);
	case MESSAGE_CANCEL: return cancel_arrived(p, x, config, &key);
	case MESSAGE_HEARTBEAT: return heartbeat_arrived(p, x, config, &key);
	case MESSAGE_ALIVE: return heartbeat_answered(x);
	}
	return cancel_answered(p, x);
}

/* Program: the stack of a middlebox that has left goes on talking.  A FIN is acknowledged, and what has been sent before: it has
 * arrived, but its acknowledgment may have got lost, and without it the socket never comes to its FIN.  All else is swallowed. */
INLINE int tombstone_egress(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x || segment_read(p))
		return VERDICT_DROP;
	struct segment *s = &x->segment;
	struct five_tuple key = segment_tuple(s);
	struct entry *e = port_egress(&key);
	port_count(COUNT_DROP_TOMBSTONE);
	if (e && s->flags & TCP_ACK && s->ack == e->seen.ack + 1)
		e->flags |= ENTRY_ENDED; /* the only thing left to acknowledge was the FIN of command_close */
	else if (e && s->flags & TCP_ACK && seq_after(s->ack, e->seen.ack))
		e->seen.ack = s->ack;
	u32 end = s->seq + s->length;
	int again = e && s->length && !seq_after(end, e->seen.seq_high);
	if (!(s->flags & TCP_FIN) && !again)
		return VERDICT_DROP;
	struct frame_header f = { reversed(&key), s->ack, end, TCP_ACK, HANDSHAKE_WINDOW };
	frame_start(x, &f);
	if (s->timestamp_at)
		frame_timestamp(x, s->tsecr, s->tsval);
	if (frame_finish(p, 0))
		return VERDICT_DROP;
	return port_deliver(p);
}

#endif
