/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Establishment of a service chain by the SYN (paper II-A).
 *
 * A SYN that leaves gets a subsession and a payload: session, subsession, the middleboxes still to come.  A SYN that
 * arrives with such a payload loses it, becomes the session's SYN again and goes to the local stack.  Both are
 * idempotent: a repeated SYN finds what the first one made.
 */
#ifndef DYSCO_SETUP_H
#define DYSCO_SETUP_H
#include "contest.h"
#include "filter.h"
#include "freshness.h"
#include "session.h"
#include "setup_message.h"
#include "tag.h"

enum { PORT_TRIES = 16, SYNS_UNANSWERED = 2 };

/* ---- a SYN leaves ---- */

/* Whether nothing uses this tuple: a session that has been over for a second makes room, though it lingers. */
INLINE int subsession_free(const struct five_tuple *to)
{
	struct five_tuple back = reversed(to);
	struct entry *e = port_ingress(&back);

	if (!e)
		return 1;
	u64 nonce = e->nonce;
	struct session *s = port_session(&nonce);
	if (!s || !s->over_ns || port_now() - s->over_ns < REUSE_NS)
		return 0;
	session_forget(s, nonce);
	return !port_ingress(&back);
}

/* Chooses a source port for a subsession to `to->dst`; a tuple in use is never taken.  The destination port stays the
 * session's, for firewalls on the way, until the source ports run out.  < 0: none free. */
INLINE int subsession_port(const struct config *config, struct five_tuple *to)
{
	u32 ports = config->ports;

	for (u32 i = 0; i < PORT_TRIES && ports; i++) {
		u32 random = port_random();
		to->sport = be16_of(config->first_port + random % ports);
		if (i >= PORT_TRIES / 2)
			to->dport = be16_of(config->first_port + (random >> 16) % ports);
		if (subsession_free(to))
			return 0;
	}
	port_count(COUNT_DROP_NO_PORT);
	return -1;
}

/* The subsession to the next agent: addresses, port and next hop.  `home` is the address of ours that it shall have, 0:
 * the session's or the route's.  Returns the next hop's index, 0 if there is none. */
INLINE u32 subsession_to(struct packet *p, const struct config *config, be32 next, be32 home, const struct five_tuple *session,
			 struct five_tuple *to)
{
	u32 index = port_route(p, next, home);
	struct next_hop *hop = port_next_hop_at(index);

	if (!index || !hop) {
		port_count(COUNT_DROP_NO_ROUTE);
		return 0;
	}
	to->src = home ? home : is_own(config, session->src) ? session->src : hop->from;
	to->dst = next;
	to->dport = session->dport;
	return subsession_port(config, to) ? 0 : index;
}

/* Which of its middleboxes a type gives to the next session: by turns, or the one with the fewest sessions; 0: none. */
NOINLINE u32 member_pick(u32 slot)
{
	struct middlebox_type *t = port_type(slot);

	if (!t || !t->members || t->members > MAX_MEMBERS) {
		port_count(COUNT_NO_MEMBER);
		return 0;
	}
	u32 members = t->members, turn = t->turn++, best = turn % members;
	if (t->choose == CHOOSE_FEWEST) {
		u64 least = ~0ull;
		for (u32 i = 0; i < MAX_MEMBERS; i++) {
			u32 at = (turn + i) % members;
			be32 member = t->member[at & (MAX_MEMBERS - 1)];
			u64 *sessions = i < members ? port_member(&member) : 0;
			u64 has = i < members ? sessions ? *sessions : 0 : ~0ull;
			if (has < least)
				least = has, best = at;
		}
	}
	return t->member[best & (MAX_MEMBERS - 1)];
}

/* What a policy lists at place i: an address, or one that its type gives; noted, so that it is counted. */
NOINLINE be32 listed(struct session *s, const struct policy *policy, u32 i)
{
	if (!s || !policy || i >= MAX_MIDDLEBOXES)
		return 0;
	u32 type = policy->type[i];

	if (!type)
		return policy->chain[i];
	be32 member = member_pick(type - 1);
	if (member && s->picks < MAX_MIDDLEBOXES) {
		s->picked[s->picks & (MAX_MIDDLEBOXES - 1)] = member;
		s->picks++;
		member_count(member, 1);
	}
	return member;
}

/* The record in x->session of a session that begins here with this chain; returns a fresh nonce.  This host and the
 * server are no middleboxes of it. */
INLINE u64 session_begin(struct scratch *x, const struct config *config, const struct five_tuple *key, const be32 *chain,
			 u32 length, const struct policy *policy)
{
	struct session *s = &x->session;

	__builtin_memset(s, 0, sizeof(*s));
	s->left_tuple = s->right_tuple = *key;
	s->flags = SESSION_FIRST;
	s->created_ns = port_now();
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++) {
		if (i >= length)
			break;
		be32 next = policy ? listed(s, policy, i) : chain[i];
		if (!next || is_own(config, next) || next == key->dst)
			continue;
		s->chain[s->chain_length & (MAX_MIDDLEBOXES - 1)] = next;
		s->chain_length++;
	}
	return (u64)port_random() << 32 | port_random() | 1;
}

/* A session begins here if a policy says so.  Its nonce, 0: no policy does. */
INLINE u64 session_start(struct packet *p, struct scratch *x, struct config *config, const struct five_tuple *key)
{
	struct policy *policy = policy_match(p, config);

	if (!policy)
		return 0;
	u64 nonce = session_begin(x, config, key, policy->chain, policy->chain_length, policy);
	x->session.flags |= (policy->on_no_agent ? SESSION_BYPASS : 0) | (policy->ends ? SESSION_ENDS : 0);
	return nonce;
}

/* Appends a middlebox to x->lists, in which no address occurs twice. */
NOINLINE int list_add(be32 middlebox)
{
	struct scratch *x = port_scratch();

	if (!x)
		return -1;
	struct setup_lists *l = &x->lists;
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++)
		if (i < l->chain_length && l->chain[i] == middlebox)
			return 0;
	if (l->chain_length >= MAX_MIDDLEBOXES) {
		port_count(COUNT_CHAIN_TOO_LONG);
		return -1;
	}
	l->chain[l->chain_length & (MAX_MIDDLEBOXES - 1)] = middlebox;
	l->chain_length++;
	return 0;
}

/* A middlebox whose own policy matches adds to the part of the chain that is still to come (paper II-B): its additions
 * come first; what no longer fits is left out. */
NOINLINE int chain_extend(struct packet *p, u64 nonce)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();
	struct session *s = port_session(&nonce);
	struct policy *policy = p && x && config && s ? policy_match(p, config) : 0;

	if (!policy || !s || !x || !config)
		return 0;
	x->lists.chain_length = 0;
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++) {
		be32 next = i < policy->chain_length ? listed(s, policy, i) : 0;
		if (next && !is_own(config, next) && next != s->right_tuple.dst)
			list_add(next);
	}
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++)
		if (i < s->chain_length)
			list_add(s->chain[i]);
	s->chain_length = x->lists.chain_length;
	for (u32 i = 0; i < MAX_MIDDLEBOXES; i++)
		s->chain[i] = x->lists.chain[i];
	return 0;
}

/* Whether a table had no room: counted. */
INLINE int no_room(int failed)
{
	if (failed)
		port_count(COUNT_DROP_TABLE_FULL);
	return failed;
}

/* Gives the session its subsession to the right; `pending` is the egress entry that waits for it, if there is one.
 * Returns the next hop's index, 0 if there is none or no room. */
INLINE u32 session_join_right(struct packet *p, struct scratch *x, struct config *config, struct session *s, u64 nonce,
			      const struct five_tuple *key, struct entry *pending)
{
	struct five_tuple to = {}, back = reversed(key);
	be32 next = s->chain_length ? s->chain[0] : key->dst;
	u32 hop = subsession_to(p, config, next, s->home, key, &to);

	if (!hop)
		return 0;
	if (!pending && !(s->flags & SESSION_FIRST))
		egress_forget(&s->right_tuple, nonce); /* a NAT is here: what waited for the SYN as it came in */
	s->right_tuple = *key;
	s->right_sub = to;
	struct entry *e = entry_start(x, nonce, SIDE_RIGHT, &back);
	back = reversed(&to);
	if (no_room(port_put_ingress(&back, e)))
		return 0;
	e = pending ? pending : entry_start(x, nonce, SIDE_RIGHT, &to);
	e->to.to = to;
	e->next_hop = hop;
	see(&e->seen, x->segment.seq + 1, 1, 0, 0, 0);
	see_tsval(&e->seen, x->segment.tsval);
	e->flags = 0;
	return !pending && no_room(port_put_egress(key, e)) ? 0 : hop;
}

/* Sends the SYN in hand on the session's right subsession. */
INLINE int setup_send(struct packet *p, struct scratch *x, struct config *config, struct session *s, u64 nonce, u32 hop)
{
	setup_lists_of(&x->lists, s);
	setup_message_write(x, nonce, &s->right_tuple, &s->right_sub);
	int bytes = message_sign(config, s->right_sub.dst);
	if (bytes < 0 || setup_attach(p, (u32)bytes))
		return VERDICT_DROP;
	segment_set_tuple(&x->segment, &s->right_sub);
	if (segment_write(p))
		return VERDICT_DROP;
	return port_leave(p, hop);
}

/* First agent: the session goes on without a chain, from its next SYN on. */
INLINE void setup_bypass(struct session *s, u64 nonce, struct entry *e)
{
	struct five_tuple in_key = reversed(&s->right_sub);

	tell(EVENT_NO_AGENT, nonce, 0, s->right_sub.dst, SIDE_RIGHT);
	e->flags |= ENTRY_PLAIN;
	ingress_forget(&in_key, nonce);
}

/* First agent: two repeated SYNs have had no answer.  The application gets a refusal now, not in two minutes. */
INLINE int setup_fail(struct packet *p, struct scratch *x, struct session *s, u64 nonce, const struct five_tuple *key)
{
	struct frame_header f = { reversed(key), 0, x->segment.seq + 1, TCP_RST | TCP_ACK, 0 };

	tell(EVENT_NO_AGENT, nonce, 0, s->right_sub.dst, SIDE_RIGHT);
	session_forget(s, nonce);
	frame_start(x, &f);
	return frame_finish(p, 0) ? VERDICT_DROP : port_deliver(p);
}

/* Program: a SYN leaves. */
INLINE int setup_egress(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct config *config = port_config();

	if (!x || !config || segment_read(p))
		return VERDICT_PASS;
	struct segment *syn = &x->segment;
	struct five_tuple key = segment_tuple(syn);
	struct entry *e = port_egress(&key);
	if (!has_ports(&key) || (e && e->flags & ENTRY_PLAIN))
		return VERDICT_PASS;
	u64 marked = port_tag(p), tagged = tag_take(syn), nonce = e ? e->nonce : tagged ? tagged : marked;
	struct session *s = nonce ? port_session(&nonce) : 0;
	if (tagged) {
		port_count(COUNT_TAG_RETURNED);
		if (!s)
			return VERDICT_DROP; /* it would leave with its tag; the SYN will be repeated */
	}
	if (e && !(e->flags & ENTRY_PENDING) && (!s || s->offer[RIGHTWARD].isn != syn->seq)) {
		if (s && !s->over_ns && s->offer[LEFTWARD].has & OFFER_SEEN && !is_own(config, key.src)) {
			port_count(COUNT_DROP_COLLISION);
			return session_challenge(p, nonce); /* forwarded: anybody may have sent it */
		}
		session_forget(s, nonce); /* the five-tuple is used again */
		egress_forget(&key, nonce);
		if (port_egress(&key))
			return VERDICT_DROP; /* another processor is about to drop it; the SYN will be repeated */
		e = 0, s = 0;
	}
	if (syn->payload || syn->offer.has & OFFER_AUTHENTICATED) {
		port_count(syn->payload ? COUNT_PASS_SYN_DATA : COUNT_PASS_AUTHENTICATED);
		return VERDICT_PASS;
	}
	int first = !s;
	if (first) {
		nonce = session_start(p, x, config, &key);
		if (!nonce)
			return VERDICT_PASS;
		s = &x->session;
	}
	u32 hop;
	if (!e || e->flags & ENTRY_PENDING) {
		if (!(s->flags & SESSION_FIRST) && !s->new_path.txid)
			chain_extend(p, nonce);
		hop = session_join_right(p, x, config, s, nonce, &key, e);
		s->offer[RIGHTWARD] = syn->offer;
		if (!hop || (first && no_room(port_put_session(&nonce, s)))) {
			session_forget(s, nonce);
			return VERDICT_DROP;
		}
		if (first)
			port_count(COUNT_SESSION_STARTED);
		tell(EVENT_SESSION_STARTED, nonce, 0, 0, SIDE_RIGHT);
	} else {
		hop = e->next_hop;
		port_count(COUNT_SYN_REPEATED);
		if (s->flags & SESSION_FIRST && !(s->offer[LEFTWARD].has & OFFER_SEEN) && ++s->syns > SYNS_UNANSWERED) {
			if (!(s->flags & SESSION_BYPASS))
				return setup_fail(p, x, s, nonce, &key);
			setup_bypass(s, nonce, e);
			return VERDICT_PASS;
		}
	}
	return setup_send(p, x, config, s, nonce, hop);
}

/* ---- a SYN arrives ---- */

/* A NAT without an agent has changed the subsession on its way.  From here on the session has the five-tuple that it would
 * have without us: private addresses mean nothing here, and two clients may share one (paper II-B).  Returns session
 * flags: nothing new can go back to the left of a NAT. */
INLINE u32 nat_apply(struct five_tuple *session, const struct five_tuple *sent, const struct five_tuple *arrived)
{
	u32 source = arrived->src != sent->src || arrived->sport != sent->sport;
	u32 destination = arrived->dst != sent->dst || arrived->dport != sent->dport;

	if (source && session->src == sent->src) {
		session->src = arrived->src;
		session->sport = arrived->sport;
	}
	if (destination && session->dst == sent->dst) {
		session->dst = arrived->dst;
		session->dport = arrived->dport;
	}
	return (source ? SESSION_NAT : 0) | (destination ? SESSION_FORWARDED : 0);
}

/* The record and entries of a session whose SYN came from the left.  < 0: no room, or a tuple is taken; by a session that
 * lives: *alive is its nonce. */
INLINE int session_join_left(struct scratch *x, struct config *config, u64 nonce, const struct five_tuple *key, u32 left_txid,
			     u64 *alive)
{
	struct setup_message *m = (struct setup_message *)x->message;
	struct session *s = &x->session;
	struct five_tuple session = m->session, sent = m->subsession, wire_back = reversed(key);
	u32 nat = nat_apply(&session, &sent, key);
	struct five_tuple back = reversed(&session);

	__builtin_memset(s, 0, sizeof(*s));
	s->left_tuple = s->right_tuple = session;
	s->left_sub = *key;
	s->offer[RIGHTWARD] = x->segment.offer;
	s->created_ns = port_now();
	s->chain_length = x->lists.chain_length;
	for (int i = 0; i < MAX_MIDDLEBOXES; i++)
		s->chain[i] = x->lists.chain[i];
	s->new_path = x->lists.new_path;
	s->left_txid = left_txid;
	if (left_txid)
		transaction_note(s, left_txid);
	if (s->new_path.txid) {
		transactions_begin(s, s->new_path.txid);
		known_by(s, SIDE_RIGHT, nonce, s->chain_length == 1 ? s->new_path.handle : nonce);
	}
	if (is_own(config, session.dst) || (x->lists.ends && !s->chain_length))
		s->flags = SESSION_LAST;
	else if (x->lists.ends)
		s->flags = SESSION_ENDS;
	s->flags |= nat | s->new_path.fins;
	s->outside = nat & SESSION_FORWARDED ? sent.dst : 0;
	struct entry *taken = port_egress(&back);
	if (taken) {
		enum contest contest = five_tuple_contest(taken, nonce);
		u64 old = taken->nonce;
		if (contest != CONTEST_WON) {
			port_count(COUNT_DROP_COLLISION);
			*alive = contest == CONTEST_ALIVE ? old : 0;
			return -1;
		}
		session_forget(port_session(&old), old);
		egress_forget(&back, old);
		if (port_egress(&back))
			return -1;
	}
	if (no_room(port_put_session(&nonce, s)))
		return -1;
	port_count(COUNT_SESSION_JOINED);
	struct entry *e = entry_start(x, nonce, SIDE_LEFT, &session);
	see(&e->seen, x->segment.seq + 1, 1, 0, 0, 0);
	see_tsval(&e->seen, x->segment.tsval);
	if (no_room(port_put_ingress(key, e)))
		return -1;
	e = entry_start(x, nonce, SIDE_LEFT, &wire_back);
	if (no_room(port_put_egress(&back, e)))
		return -1;
	if (s->flags & SESSION_LAST)
		return 0;
	e = entry_start(x, nonce, SIDE_RIGHT, &session);
	e->flags = ENTRY_PENDING;
	return no_room(port_put_egress(&session, e));
}

INLINE u32 txid_of_leaving(const struct session *s) { return s->flags & SESSION_LEFT_CHAIN ? s->txid : 0; }

/* A new path brings back a session that has left this middlebox, by the port that it had: no repeated SYN. */
INLINE int another_path(const struct scratch *x, const struct session *s)
{
	const struct new_path *path = &x->lists.new_path;

	return path->txid && !transaction_known(s, path->txid) && s->flags & (SESSION_LEFT_CHAIN | SESSION_RST);
}

/* A SYN for an entry that is there: another one's, by ports that are used again, one of a session that has ended, or one whose
 * sender has had the answer.  Only the left anchor of a new path asks once more after that, until the new path is ready. */
INLINE int syn_replayed(const struct scratch *x, const struct session *s, const struct entry *e)
{
	if (s->offer[RIGHTWARD].isn != x->segment.seq || s->over_ns)
		return 1;
	return e->seen.has & SEEN_ACK && (!s->new_path.txid || s->done_txid[SIDE_RIGHT]);
}

/* A SYN with a message of ours begins or repeats a session; it goes on to the local stack. */
INLINE int setup_arrived(struct packet *p, struct scratch *x, struct config *config, const struct five_tuple *key)
{
	struct setup_message *m = (struct setup_message *)x->message;
	u64 nonce = m->header.nonce;
	struct entry *e = port_ingress(key);

	u64 old = e ? e->nonce : 0;
	struct session *s = e ? port_session(&old) : 0;
	u32 left_txid = 0;
	if (e && (old != nonce || !s || another_path(x, s))) {
		u32 grave = old != nonce && e->flags & ENTRY_TOMBSTONE; /* its session has another path by now, or none here */
		if (s && !s->over_ns && !grave) {
			port_count(COUNT_DROP_COLLISION);
			return old == nonce ? VERDICT_DROP : session_challenge(p, old);
		}
		left_txid = s && old == nonce ? txid_of_leaving(s) : 0;
		if (!grave)
			session_forget(s, old);
		ingress_forget(key, old);
		if (port_ingress(key))
			return VERDICT_DROP;
		e = 0;
	}
	if (!e) {
		struct session *before = port_session(&nonce);
		if (before && !another_path(x, before)) {
			/* the session passes here already, or has: a loop, a replay, or two that insert this host */
			port_count(COUNT_DROP_COLLISION);
			return VERDICT_DROP;
		}
		left_txid = before ? txid_of_leaving(before) : left_txid;
		session_forget(before, nonce); /* it has left this middlebox (or never quite came), and comes back */
		u64 alive = 0;
		if (session_join_left(x, config, nonce, key, left_txid, &alive)) {
			if (!alive)
				session_forget(&x->session, nonce);
			return alive ? session_challenge(p, alive) : VERDICT_DROP;
		}
		tell(EVENT_SESSION_STARTED, nonce, 0, 0, SIDE_LEFT);
	} else if (syn_replayed(x, s, e)) {
		port_count(COUNT_DROP_COLLISION);
		return VERDICT_DROP;
	} else {
		port_count(COUNT_SYN_REPEATED);
	}
	s = e ? s : &x->session;
	if (!s || setup_detach(p))
		return VERDICT_DROP;
	segment_set_tuple(&x->segment, &s->left_tuple);
	u32 last = s->flags & SESSION_LAST, number = last ? 0 : port_put_tag(p, &nonce);
	if (!last && config->flags & CONFIG_TAG_OPTION)
		tag_append(p, number);
	return segment_write(p) ? VERDICT_DROP : VERDICT_PASS;
}

#endif
