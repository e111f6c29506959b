/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the daemon asks of the core.  It never writes a session itself: it runs this program with a command in the
 * place of a packet's IP header.  The packet then becomes whatever segment the command sends.
 */
#ifndef DYSCO_COMMAND_H
#define DYSCO_COMMAND_H
#include "expiry.h"
#include "heartbeat.h"
#include "release.h"
#include "setup.h"

/* Starts the control message about a reconfiguration that this agent leads. */
INLINE void control_start(struct scratch *x, const struct session *s, const struct reconfig *r, u64 nonce, u32 type)
{
	struct control_message *m = control_message(x);

	__builtin_memset(m, 0, sizeof(*m));
	m->header.type = (u8)type;
	m->header.nonce = known_there(s, SIDE_RIGHT, nonce);
	m->txid = be32_of(r->txid);
	m->left_anchor = r->left_anchor;
	m->right_anchor = r->right_anchor;
	m->handle = nonce;
	struct five_tuple out_key = r->out_key;
	m->delta = be32_of(delta_of(port_egress(&out_key), m));
	if (!r->handle && r->flags & RECONFIG_RIGHT_OF)
		m->flags |= CONTROL_RIGHT_OF;
	m->flags |= r->flags & RECONFIG_PARK ? CONTROL_PARK : 0;
}

/* Sends the control message in scratch along the old path. */
INLINE u32 control_start_send(struct packet *p, struct scratch *x, struct config *config, const struct reconfig *r)
{
	struct five_tuple rightward = reversed(&r->old_in);

	x->control_to = control_tuple(config, &rightward);
	u32 hop = control_write(p);
	if (!hop)
		return REFUSED_NO_ROUTE;
	port_send_copy(p, hop);
	return REFUSED_NOT;
}

INLINE u32 command_reconfigure(struct packet *p, struct scratch *x, struct config *config, const struct command *c)
{
	u64 nonce = c->nonce;
	struct session *s = port_session(&nonce);
	struct reconfig_key key = { nonce, SIDE_RIGHT, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (!s)
		return REFUSED_NO_SESSION;
	if (s->flags & (SESSION_RST | SESSION_LEFT_CHAIN) || !s->right_sub.dport ||
	    (s->flags & SESSION_FIN_RIGHTWARD && s->flags & SESSION_FIN_LEFTWARD))
		return REFUSED_SESSION_OVER;
	if (r && r->phase != PHASE_DONE)
		return REFUSED_BUSY;
	struct five_tuple out_key = s->right_tuple, old_in = reversed(&s->right_sub);
	struct entry *out = port_egress(&out_key), *in = port_ingress(&old_in);
	if (!out || !in || !(s->offer[LEFTWARD].has & OFFER_SEEN) || !both_ways_seen(out, in))
		return REFUSED_BAD_STATE;
	if (c->flags & CONTROL_PARK && !config->parking)
		return REFUSED_PARKING;
	if (!transaction_new(s, c->txid))
		return REFUSED_STALE;
	if (lock_take(s, c->txid, s->right_sub.src))
		return REFUSED_LOCKED;
	transaction_note(s, c->txid);
	r = (struct reconfig *)x->reconfig;
	__builtin_memset(r, 0, sizeof(*r));
	r->txid = c->txid;
	r->phase = PHASE_LOCKING;
	r->flags = RECONFIG_LEFT_ANCHOR | (c->flags & CONTROL_RIGHT_OF ? RECONFIG_RIGHT_OF : 0) |
		   (c->flags & CONTROL_PARK ? RECONFIG_PARK : 0);
	r->left_anchor = s->right_sub.src;
	r->right_anchor = c->right_anchor ? c->right_anchor : s->right_sub.dst;
	r->out_key = out_key;
	r->old_in = old_in;
	record_begin(r, s, SIDE_RIGHT, out, in);
	r->chain_length = c->chain_length & 15;
	for (int i = 0; i < MAX_MIDDLEBOXES; i++)
		r->chain[i] = c->chain[i];
	r->lock_ns = port_now();
	if (port_put_reconfig(&key, r)) {
		s->lock = UNLOCKED;
		return REFUSED_BUSY;
	}
	out->slow = 1;
	in->slow = 1;
	tell(EVENT_LOCK_REQUESTED, nonce, c->txid, r->right_anchor, SIDE_RIGHT);
	control_start(x, s, r, nonce, MESSAGE_REQUEST_LOCK);
	return control_start_send(p, x, config, r);
}

/* The old path has failed while it was still needed: what was on it is lost, and with it the session (paper III-G).  The other
 * anchor hears it by a reset on the new path. */
INLINE u32 old_path_failed(struct packet *p, struct scratch *x, struct session *s, u64 nonce, const struct reconfig *r,
			   const struct entry *out)
{
	u32 next = r->flags & RECONFIG_CUTOFF ? seq_max(out->seen.seq_high, r->old_sent) - r->beta_out : r->isn_out + 1;
	struct frame_header f = { r->new_out.to, next, 0, TCP_RST, 0 };

	frame_start(x, &f);
	if (!frame_finish(p, 0))
		port_send_copy(p, r->new_next_hop);
	s->flags |= SESSION_RST;
	return session_lost(s, nonce, r->right_anchor, SIDE_RIGHT);
}

/* REPEAT, RELEASE and CANCEL concern a reconfiguration that this agent leads. */
INLINE u32 command_leader(struct packet *p, struct scratch *x, struct config *config, const struct command *c)
{
	u64 nonce = c->nonce;
	struct session *s = port_session(&nonce);
	struct reconfig_key key = { nonce, SIDE_RIGHT, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (!s || !r || r->txid != c->txid)
		return REFUSED_NO_SESSION;
	if (r->flags & RECONFIG_CANCEL && c->kind != COMMAND_CANCEL)
		return REFUSED_BAD_STATE;
	s->lock_until_ns = port_now() + LOCK_LEASE_NS;
	u32 type = MESSAGE_REQUEST_LOCK, flags = 0, beta = 0;
	if (c->kind == COMMAND_CANCEL) {
		port_lock(r);
		u32 may = can_undo(r) && !(r->phase < PHASE_READY && r->flags & RECONFIG_SYN_ACK);
		r->flags |= may ? RECONFIG_CANCEL : 0;
		port_unlock(r);
		if (!may)
			return REFUSED_BAD_STATE;
		type = MESSAGE_CANCEL;
		if (r->phase >= PHASE_HANDSHAKE)
			new_path_reset(p, x, r);
	} else if (c->kind == COMMAND_RELEASE) {
		struct entry *out = port_egress(&r->out_key), *in = port_ingress(&r->old_in);
		if (r->phase != PHASE_READY || !out || !in)
			return REFUSED_BAD_STATE;
		u64 now = port_now();
		if (now > (r->heard_ns ? r->heard_ns : r->ready_ns) + ANCHOR_SILENT_NS)
			return old_path_failed(p, x, s, nonce, r, out);
		port_lock(r);
		u32 drained = release_update(r, out, in, now);
		u32 go = c->flags & CONTROL_GO && r->flags & RECONFIG_PARK && !(r->flags & RECONFIG_GO);
		r->flags |= go ? RECONFIG_GO : 0;
		port_unlock(r);
		if (drained)
			tell(EVENT_DRAINED, nonce, r->txid, 0, SIDE_RIGHT);
		if (go)
			tell(EVENT_UNPARK, nonce, r->txid, 0, SIDE_RIGHT);
		new_path_assert(p, x, r);
		type = MESSAGE_RELEASE;
		beta = r->beta_out;
		flags = CONTROL_BETA | (r->flags & RECONFIG_BETA_IN ? CONTROL_BETA_KNOWN : 0) |
			(r->flags & RECONFIG_DRAINED ? CONTROL_DRAINED : 0) | (r->flags & RECONFIG_GO ? CONTROL_GO : 0);
	} else if (r->phase == PHASE_HANDSHAKE) { /* the request goes along: a lock between the anchors is a lease */
		u32 hop = new_path_syn(p, nonce);
		if (!hop)
			return REFUSED_NO_ROUTE;
		port_send_copy(p, hop);
	} else if (r->phase != PHASE_LOCKING) {
		return REFUSED_BAD_STATE;
	}
	control_start(x, s, r, nonce, type);
	if (type == MESSAGE_RELEASE)
		control_message(x)->beta = be32_of(beta);
	control_message(x)->flags |= (u8)flags;
	u32 result = control_start_send(p, x, config, r);
	return result;
}

/* A record ends by time: what no traffic has settled settles, what is done goes, a cancelled attempt ends even if nobody
 * answers. */
INLINE u32 command_forget_attempt(struct packet *p, const struct command *c)
{
	u64 nonce = c->nonce;
	struct session *s = port_session(&nonce);
	struct reconfig_key key = { nonce, c->side & 1, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (!s || !r || r->txid != c->txid)
		return REFUSED_NO_SESSION;
	if (r->phase == PHASE_SETTLING) {
		struct five_tuple new_in = r->new_in;
		struct entry *out = port_egress(&r->out_key), *in = port_ingress(&new_in);
		if (out && !seq_after(out->seen.seq_high, r->ack_delivered))
			r->flags |= RECONFIG_EDGE; /* nothing is under way that a smaller window could strand */
		if ((r->flags & (RECONFIG_CLOCKS | RECONFIG_TS_OFFSET)) == RECONFIG_CLOCKS) { /* of a clock that has not been heard */
			r->ts_offset = r->ts_delivered - r->ts_in0; /* it never shows less */
			r->flags |= RECONFIG_TS_OFFSET;
		}
		settle(r, out, in, nonce, c->side & 1, 1);
		return r->phase == PHASE_DONE ? REFUSED_NOT : REFUSED_BUSY;
	}
	if (r->phase == PHASE_DONE) {
		port_drop_reconfig(&key);
		return REFUSED_NOT;
	}
	if (!can_undo(r) || (r->phase < PHASE_READY && r->flags & RECONFIG_SYN_ACK))
		return REFUSED_BAD_STATE;
	attempt_undo(r, nonce, c->side & 1);
	if (c->side == SIDE_RIGHT) {
		s->lock = UNLOCKED;
		u32 hop = held_write(p, nonce);
		if (hop)
			port_send_copy(p, hop);
	}
	return REFUSED_NOT;
}

/* What had to wait has gone: from here on segments leave at once.  Not yet if another came meanwhile: it would be overtaken. */
INLINE u32 command_unpark(const struct command *c)
{
	u64 nonce = c->nonce;
	struct reconfig_key key = { nonce, c->side & 1, 0 };
	struct reconfig *r = port_reconfig(&key);

	if (!r || r->txid != c->txid || !(r->flags & RECONFIG_GO))
		return REFUSED_NO_SESSION;
	struct five_tuple new_in = r->new_in;
	port_lock(r);
	u32 waits = r->parked != c->parked;
	r->flags &= waits ? ~0u : ~(u32)RECONFIG_PARK;
	port_unlock(r);
	if (waits)
		return REFUSED_BUSY;
	settle(r, port_egress(&r->out_key), port_ingress(&new_in), nonce, c->side & 1, 0);
	return REFUSED_NOT;
}

/* A local program says, before it connects, through which middleboxes: the session waits for its SYN, as that of a
 * middlebox does. */
INLINE u32 command_next(struct scratch *x, const struct config *config, const struct command *c)
{
	struct five_tuple key = c->tuple;
	struct entry *before = port_egress(&key);

	if (before) {
		u64 old = before->nonce;
		struct session *s = port_session(&old);
		if (s && !s->over_ns && !(before->flags & ENTRY_PENDING && s->flags & SESSION_FIRST))
			return REFUSED_IN_USE; /* it lives, or is one that passes this middlebox */
		session_forget(s, old);
		egress_forget(&key, old);
	}
	if (c->chain_length > MAX_MIDDLEBOXES || !has_ports(&key))
		return REFUSED_BAD_STATE;
	u64 nonce = session_begin(x, config, &key, c->chain, c->chain_length, 0);
	struct entry *e = entry_start(x, nonce, SIDE_RIGHT, &key);
	e->flags = ENTRY_PENDING;
	if (no_room(port_put_session(&nonce, &x->session)))
		return REFUSED_NO_ROOM;
	port_count(COUNT_SESSION_STARTED);
	return no_room(port_put_egress(&key, e)) ? REFUSED_NO_ROOM : REFUSED_NOT;
}

INLINE u32 command_splice(const struct command *c)
{
	u64 nonce = c->nonce, peer = c->peer;
	struct session *in = port_session(&nonce), *out = port_session(&peer);

	if (!in || !out)
		return REFUSED_NO_SESSION;
	if (!(in->flags & SESSION_LAST) || !(out->flags & SESSION_FIRST) ||
	    (in->flags | out->flags) & (SESSION_RST | SESSION_LEFT_CHAIN))
		return REFUSED_SESSION_OVER;
	if (!(in->offer[LEFTWARD].has & OFFER_SEEN) || !(out->offer[LEFTWARD].has & OFFER_SEEN))
		return REFUSED_BAD_STATE;
	if ((in->offer[RIGHTWARD].has & in->offer[LEFTWARD].has) & OFFER_MULTIPATH)
		return REFUSED_OPTIONS; /* its mappings name sequence numbers that a delta would move */
	if (in->flags & SESSION_SPLICED)
		return in->peer == peer ? REFUSED_NOT : REFUSED_BUSY;
	in->splice_delta[RIGHTWARD] = out->offer[RIGHTWARD].isn - in->offer[RIGHTWARD].isn + c->delta[RIGHTWARD];
	out->splice_delta[LEFTWARD] = in->offer[LEFTWARD].isn - out->offer[LEFTWARD].isn + c->delta[LEFTWARD];
	in->peer = peer;
	out->peer = nonce;
	in->flags |= SESSION_SPLICED;
	out->flags |= SESSION_SPLICED;
	return REFUSED_NOT;
}

/* An end host moves: the session's new paths have another address of it.  Its sockets keep the one that they know. */
INLINE u32 command_move(const struct config *config, const struct command *c)
{
	u64 nonce = c->nonce;
	struct session *s = port_session(&nonce);

	if (!s)
		return REFUSED_NO_SESSION;
	if (s->over_ns)
		return REFUSED_SESSION_OVER;
	if (!(s->flags & (SESSION_FIRST | SESSION_LAST)) || !is_own(config, c->tuple.src))
		return REFUSED_BAD_STATE;
	s->home = c->tuple.src;
	return REFUSED_NOT;
}

INLINE u32 command_trigger(struct packet *p, struct scratch *x, struct config *config, const struct command *c)
{
	u64 nonce = c->nonce;
	struct session *s = port_session(&nonce);

	if (!s || !s->left_sub.dport)
		return REFUSED_NO_SESSION;
	if (s->flags & SESSION_NAT)
		return REFUSED_NAT; /* our message would be the first of its five-tuple */
	if (s->flags & SESSION_FORWARDED)
		return REFUSED_FORWARDED; /* it would not come from the address by which we are known there */
	struct control_message *m = control_message(x);
	struct five_tuple leftward = reversed(&s->left_sub);
	__builtin_memset(m, 0, sizeof(*m));
	transaction_note(s, c->txid);
	m->header.type = MESSAGE_TRIGGER;
	m->header.nonce = known_there(s, SIDE_LEFT, nonce);
	m->txid = be32_of(c->txid);
	m->left_anchor = leftward.dst;
	m->right_anchor = leftward.src;
	m->flags = (u8)c->flags;
	x->control_to = leftward_tuple(config, &s->left_sub);
	u32 hop = control_write(p);
	if (!hop)
		return REFUSED_NO_ROUTE;
	port_send_copy(p, hop);
	return REFUSED_NOT;
}

/* The local socket of one side of a removed proxy gets a FIN in place of its peer: it reads end of file, and closes
 * without a reset.  What it then sends is answered by tombstone_egress. */
INLINE u32 command_close(struct packet *p, struct scratch *x, const struct command *c)
{
	u64 nonce = c->nonce;
	struct session *s = port_session(&nonce);

	if (!s || !(s->flags & SESSION_LEFT_CHAIN))
		return REFUSED_BAD_STATE;
	int left = s->flags & SESSION_LAST;
	struct five_tuple out_key = left ? reversed(&s->left_tuple) : s->right_tuple;
	struct five_tuple in_key = left ? s->left_sub : reversed(&s->right_sub);
	struct entry *out = port_egress(&out_key), *in = port_ingress(&in_key);
	u32 ended = SESSION_FIN_RIGHTWARD | SESSION_FIN_LEFTWARD;
	if (!out || !in || out->flags & ENTRY_ENDED || s->flags & SESSION_RST || (s->flags & ended) == ended)
		return REFUSED_SESSION_OVER; /* the socket knows */
	/* what the socket has acknowledged is what it expects next: all has drained.  (seq_high of what arrived may have
	 * lost a race between two CPUs.)  The window is open: a socket whose peer had closed it could not say its own FIN. */
	struct frame_header f = { reversed(&out_key), out->seen.ack, out->seen.seq_high, TCP_FIN | TCP_ACK, HANDSHAKE_WINDOW };
	frame_start(x, &f);
	if (s->offer[LEFTWARD].has & OFFER_TIMESTAMP)
		frame_timestamp(x, in->seen.tsval, out->seen.tsval);
	if (frame_finish(p, 0))
		return REFUSED_BAD_STATE;
	port_deliver_copy(p, c->ifindex);
	return REFUSED_NOT;
}

/* Program: a command.  Returns enum refusal. */
INLINE u32 command_run(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	if (!x || !config)
		return REFUSED_BAD_STATE;
	struct command *c = &x->command;
	if (port_load(p, AT_IP, c, sizeof(*c)))
		return REFUSED_BAD_STATE;
	switch (c->kind) {
	case COMMAND_RECONFIGURE: return command_reconfigure(p, x, config, c);
	case COMMAND_REPEAT:
	case COMMAND_RELEASE:
	case COMMAND_CANCEL: return command_leader(p, x, config, c);
	case COMMAND_UNPARK: return command_unpark(c);
	case COMMAND_NEXT: return command_next(x, config, c);
	case COMMAND_SPLICE: return command_splice(c);
	case COMMAND_TRIGGER: return command_trigger(p, x, config, c);
	case COMMAND_CLOSE: return command_close(p, x, c);
	case COMMAND_FORGET_RECORD: return command_forget_attempt(p, c);
	case COMMAND_EXPIRE: return expire(x, c);
	case COMMAND_MOVE: return command_move(config, c);
	case COMMAND_HEARTBEAT: return command_heartbeat(p, x, config, c);
	}
	return REFUSED_BAD_STATE;
}

#endif
