/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Control segments: how a message of the lock handshake travels (paper III-C, IV-B).
 *
 * Beside each subsession of the old path runs a control session: the same addresses and destination port, the source
 * port moved up by the size of the port range.  Its segments are marked by TCP option 254, are consumed where they
 * arrive and sent on from there: no TCP stack, no local conntrack, no middlebox application sees them.  To boxes
 * without an agent they are an ordinary SYN, SYN-ACK and ACKs; the sequence numbers follow from the transaction id.
 */
#ifndef DYSCO_CONTROL_H
#define DYSCO_CONTROL_H
#include "frame.h"
#include "session.h"

INLINE struct five_tuple control_tuple(const struct config *config, const struct five_tuple *subsession)
{
	struct five_tuple t = *subsession;

	t.sport = be16_of(be16_of(t.sport) + config->ports);
	return t;
}

/* What begins on the right is a connection of its own: a firewall on the way would take the reverse of another for an answer. */
INLINE struct five_tuple leftward_tuple(const struct config *config, const struct five_tuple *subsession)
{
	struct five_tuple t = control_tuple(config, subsession);

	t.src = subsession->dst;
	t.dst = subsession->src;
	return t;
}

INLINE struct control_message *control_message(struct scratch *x) { return (struct control_message *)x->message; }

/* What an agent on the old path goes on adding, betas included: to sequence numbers (returned) and timestamps.  The
 * anchors' numbers differ by the sum over the path (paper III-D). */
INLINE u32 delta_of(const struct entry *e, struct control_message *m)
{
	if (!e)
		return 0;
	m->beta = be32_of(be32_of(m->beta) + e->to.tsval_delta);
	return e->to.seq_delta;
}

/* Which segment of the control session carries a message of this type. */
INLINE struct frame_header control_segment(u32 type, u32 txid, u32 bytes)
{
	struct frame_header f = {};

	f.window = 65535;
	switch (type) {
	case MESSAGE_REQUEST_LOCK:
	case MESSAGE_TRIGGER:
	case MESSAGE_HEARTBEAT:
		f.flags = TCP_SYN;
		f.seq = txid;
		break;
	case MESSAGE_ACK_LOCK:
	case MESSAGE_NACK_LOCK:
	case MESSAGE_ALIVE:
		f.flags = TCP_SYN | TCP_ACK;
		f.seq = ~txid;
		f.ack = txid + 1 + bytes;
		break;
	case MESSAGE_RELEASE:
	case MESSAGE_CANCEL:
		f.flags = TCP_ACK | TCP_PSH;
		f.seq = txid + 1 + bytes;
		f.ack = ~txid + 1 + bytes;
		break;
	default: /* their answers */
		f.flags = TCP_ACK | TCP_PSH;
		f.seq = ~txid + 1 + bytes;
		f.ack = txid + 1 + 2 * bytes;
	}
	return f;
}

/* Makes the packet in hand the control segment for the message in scratch, to x->control_to.
 * Returns the next hop's index, 0 if it cannot be sent. */
NOINLINE u32 control_write(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	if (!x || !config || !p)
		return 0;
	x->message_length = CONTROL_BYTES;
	control_message(x)->to = x->control_to.dst;
	int bytes = message_sign(config, x->control_to.dst);
	if (bytes < 0)
		return 0;
	struct control_message *m = control_message(x);
	struct frame_header f = control_segment(m->header.type, be32_of(m->txid), (u32)bytes);
	f.tuple = x->control_to;
	frame_start(x, &f);
	frame_control_option(x);
	if (frame_finish(p, (u32)bytes))
		return 0;
	port_count(COUNT_CONTROL_SENT);
	return port_route(p, f.tuple.dst, 0);
}

/* The packet in hand becomes the control segment and leaves at once. */
NOINLINE int control_leave(struct packet *p)
{
	u32 hop = p ? control_write(p) : 0;

	return hop ? port_redirect(p, hop) : VERDICT_DROP;
}

INLINE int control_send(struct packet *p, struct scratch *x, const struct five_tuple *to)
{
	x->control_to = *to;
	return control_leave(p);
}

/* Answers the sender of the control segment that arrived on `key`. */
INLINE int control_answer(struct packet *p, struct scratch *x, const struct five_tuple *key, u32 type, u32 reason)
{
	struct control_message *m = control_message(x);
	struct five_tuple back = reversed(key);

	m->header.type = (u8)type;
	m->reason = (u8)reason;
	return control_send(p, x, &back);
}

#endif
