/* SPDX-License-Identifier: Apache-2.0 */
/* One step of one host: thaw, do, freeze.  Its outcome is remembered under what it was asked. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frozen.h"
#include "segment.h"
#include "message.h"
#include "numbers.h"
#include "stack.h"
#include "trace.h"

enum { MOST_EVENTS = 8, MOST_BYTES = sizeof(struct stack) + FROZEN_MOST };

struct attempt {
	int left, right, through;
};

enum doing { ARRIVES, ASKS, SENDS, AGES, EXPIRES };

struct question {
	u32 host, who, doing, what, t, away;
};

struct answer {
	u32 host;               /* what it is now */
	u32 outs, refusal, stale;
	short out[FLIGHT];
	u32 told[WORLD_ATTEMPTS + 1];
	const char *wrong;
};

static struct numbers hosts_seen, messages_seen, questions_seen;
static struct answer *answers;
static u32 answers_room;

static int hosts, beside;
static struct attempt attempts[WORLD_ATTEMPTS + 1];
static struct agent *agent[WORLD_HOSTS];
static be32 address[WORLD_HOSTS], ends[2];
static int moving = -1;         /* the host that has a second address */
static be32 second;
static int away;                /* it has moved there, and the first one works no more */
static struct stack stack;      /* of the host that does something now */
static struct answer *now;      /* where its outcome goes */
static const struct answer *last;
static const char *complaint;
static int where;               /* the last step was taken */
static u32 passed;              /* hosts that a segment with bytes has reached, as bits */

void wrong(const char *why)
{
	if (!complaint)
		complaint = why;
}

static const struct stack *stack_of(const int *host, int who) { return (const void *)bytes_of(&hosts_seen, (u32)host[who])->at; }

static int is_end(int who) { return who == 0 || who == hosts - 1; }

/* ---- what a pass brings about ---- */

static int host_of(const struct packet *p)
{
	be32 to;

	memcpy(&to, p->data + AT_IP + 16, 4);
	for (int i = 0; i < hosts + beside; i++)
		if ((address[i] == to && !(away && i == moving)) || (i == moving && second == to))
			return i;
	return -1;
}

/* Every segment on the wire is from this host, to another one, on a subsession. */
static void onto_wire(int who, const struct packet *p)
{
	be32 from;
	be16 sport, dport;

	memcpy(&from, p->data + AT_IP + 12, 4);
	memcpy(&sport, p->data + AT_TCP, 2);
	memcpy(&dport, p->data + AT_TCP + 2, 2);
	if ((from != address[who] || (away && who == moving)) && !(who == moving && from == second))
		wrong("a host sends a segment that is not from it");
	if (host_of(p) < 0 || host_of(p) == who)
		wrong("a host sends a segment to nobody");
	if (sport == be16_of(STACK_CLIENT_PORT) || dport == be16_of(STACK_CLIENT_PORT))
		wrong("a segment has left the chain");
	if (!stack_sum_holds(p))
		wrong("a host sends a damaged segment");
	if (now->outs == FLIGHT)
		abort();
	now->out[now->outs++] = (short)number_of(&messages_seen, p->data, p->length);
	if (messages_seen.count > 32000)
		wrong("too many different messages");
}

static void leave(int who, struct packet *p);

static void into_stack(int who, struct packet *p)
{
	if (host_of(p) == who && !is_end(who))
		return; /* for the middlebox itself, which has no such session */
	if (!is_end(who)) {
		stack_forwards(stack.watch, ends[0], p);
		leave(who, p);
	} else if (stack_receives(&stack.end, who != 0, ends, p)) {
		leave(who, p);
	}
}

static void outbox(int who)
{
	struct packet *list[OUTBOX], *p;
	int n = 0;

	while ((p = agent_sent(agent[who])))
		list[n++] = p;
	for (int i = 0; i < n; i++) {
		if (list[i]->way == WAY_LOCAL)
			into_stack(who, list[i]);
		else
			onto_wire(who, list[i]);
		free(list[i]);
	}
}

static void leave(int who, struct packet *p)
{
	enum way way = agent_egress(agent[who], p);

	outbox(who);
	if (way == WAY_ON || way == WAY_WIRE)
		onto_wire(who, p);
	else if (way == WAY_LOCAL)
		into_stack(who, p);
}

static void arrive(int who, struct packet *p)
{
	enum way way = agent_ingress(agent[who], p);

	outbox(who);
	if (way == WAY_WIRE)
		onto_wire(who, p);
	else if (way != WAY_DROPPED)
		into_stack(who, p);
}

static u32 ask(int who, const struct question *q)
{
	static const u32 kinds[ASK_KINDS] = { COMMAND_RECONFIGURE, COMMAND_REPEAT, COMMAND_RELEASE, COMMAND_CANCEL, COMMAND_FORGET_RECORD,
					 COMMAND_FORGET_RECORD, COMMAND_MOVE };
	_Static_assert(IS_BUSY == REFUSED_BUSY, "names.h");
	const struct attempt *a = &attempts[q->t];
	struct command c = { .kind = kinds[q->what], .txid = q->t, .side = q->what == ASK_FORGET_LEFT ? SIDE_LEFT : SIDE_RIGHT };
	struct five_tuple client = { ends[0], ends[1], be16_of(STACK_CLIENT_PORT), be16_of(STACK_PORT) }, back = reversed(&client);

	c.nonce = agent_nonce(agent[who], &client);
	c.nonce = c.nonce ? c.nonce : agent_nonce(agent[who], &back);
	c.tuple.src = second;
	c.right_anchor = address[a->right];
	if (a->through)
		c.chain[c.chain_length++] = address[a->through];
	u32 refusal = agent_command(agent[who], &c);
	outbox(who);
	return refusal;
}

static void expire(int who, u32 idle)
{
	struct command c = { .kind = COMMAND_EXPIRE, .linger_ns = 1, .idle_ns = idle };
	agent_command(agent[who], &c);
}

/* ---- what it has told and counted ---- */

static u32 told_at_left(const struct event *e)
{
	switch (e->kind) {
	case EVENT_LOCK_REFUSED: return TOLD_REFUSED;
	case EVENT_NEW_PATH_SYN: return TOLD_SYN;
	case EVENT_NEW_PATH_READY: return TOLD_READY;
	case EVENT_DRAINED: return TOLD_DRAINED;
	case EVENT_OLD_PATH_GONE: return TOLD_GONE;
	case EVENT_CANCELLED: return TOLD_CANCELLED;
	}
	return 0;
}

static int undone;
static void hear(int who)
{
	struct event e;

	undone = 0;

	while (agent_event(agent[who], &e)) {
		if (!e.txid || e.txid > WORLD_ATTEMPTS)
			continue;
		if (who == attempts[e.txid].left && e.side == SIDE_RIGHT)
			now->told[e.txid] |= told_at_left(&e);
		else if (e.kind == EVENT_OLD_PATH_GONE && e.side == SIDE_LEFT)
			now->told[e.txid] |= TOLD_GONE_RIGHT;
		else if (e.kind == EVENT_CANCELLED && e.side == SIDE_LEFT)
			undone = 1;
	}
}

/* A cancel has come to its right anchor, and has found nothing to undo: it has overtaken the request. */
static int overtakes(const struct question *q)
{
	if (q->doing != ARRIVES)
		return 0;
	const struct bytes *b = bytes_of(&messages_seen, q->what);
	const u8 *m = b->at + AT_OPTIONS + 4; /* behind the option that marks it */
	return b->length == AT_OPTIONS + 4 + CONTROL_BYTES && m[3] == MESSAGE_CANCEL && q->who == (u32)attempts[m[19]].right && !undone;
}

/* What must not be counted, whatever happens to messages: none is damaged, tables have room, every host has a route. */
static void counted(int who)
{
	static const struct {
		u32 counter;
		const char *why;
	} never[] = {
		{ COUNT_DROP_BAD_MESSAGE, "a message is dropped as bad" },
		{ COUNT_DROP_BAD_SIGNATURE, "a message is dropped by its signature" },
		{ COUNT_DROP_UNSIGNED, "a message is dropped as unsigned" },
		{ COUNT_DROP_COLLISION, "a SYN is dropped as a collision" },
		{ COUNT_DROP_NO_PORT, "no port is free" },
		{ COUNT_DROP_NO_ROUTE, "there is no route" },
		{ COUNT_DROP_TABLE_FULL, "a table is full" },
		{ COUNT_CHAIN_TOO_LONG, "a chain is too long" },
		{ COUNT_DROP_RESIZE, "a packet cannot be resized" },
		{ COUNT_DROP_UNKNOWN_SESSION, "a message is dropped as of an unknown session" },
		{ COUNT_PASS_FRAGMENT, "a fragment" },
		{ COUNT_PASS_IP_OPTIONS, "IP options" },
		{ COUNT_PASS_SYN_DATA, "a SYN with data of its own" },
		{ COUNT_PASS_FOREIGN_PAYLOAD, "a foreign payload in a SYN" },
		{ COUNT_EMIT_FAILED, "a segment could not be emitted" },
		{ COUNT_SPLIT_FAILED, "a segment could not be split" },
		{ COUNT_EVENT_LOST, "an event is lost" },
	};

	for (u32 i = 0; i < sizeof(never) / sizeof(*never); i++)
		if (agent[who]->counter[never[i].counter])
			wrong(never[i].why);
	now->stale = !!agent[who]->counter[COUNT_DROP_STALE_TXID];
}

/* ---- one step ---- */

static void packet_of(struct packet *p, u32 message)
{
	const struct bytes *b = bytes_of(&messages_seen, message);

	memset(p, 0, offsetof(struct packet, data));
	memcpy(p->data, b->at, b->length);
	p->length = b->length;
}

static void act(const struct question *q)
{
	static struct packet p;
	int who = (int)q->who;

	switch (q->doing) {
	case ARRIVES:
		packet_of(&p, q->what);
		arrive(who, &p);
		break;
	case ASKS: now->refusal = ask(who, q); break;
	case SENDS:
		stack_sends(&stack.end, who != 0, ends, q->what, &p);
		leave(who, &p);
		break;
	case AGES: grow_old(agent[who]); break;
	case EXPIRES: expire(who, q->what); break;
	}
}

static struct answer take_step(const struct question *q, u8 rubbish)
{
	static u8 bytes[MOST_BYTES];
	const struct bytes *before = bytes_of(&hosts_seen, q->host);
	struct answer a = {};

	now = &a;
	complaint = 0;
	memcpy(&stack, before->at, sizeof(stack));
	thaw(agent[q->who], before->at + sizeof(stack), before->length - sizeof(stack), rubbish);
	act(q);
	hear((int)q->who);
	counted((int)q->who);
	now->stale |= (u32)overtakes(q);
	memcpy(bytes, &stack, sizeof(stack));
	a.host = number_of(&hosts_seen, bytes, (u32)sizeof(stack) + freeze(agent[q->who], bytes + sizeof(stack)));
	a.wrong = complaint;
	return a;
}

/* A step follows from what it was asked: whatever is left in scratch memory by others must not matter. */
static const struct answer *answer_to(const struct question *q)
{
	u32 known = questions_seen.count, number = number_of(&questions_seen, q, sizeof(*q));

	if (number <= known)
		return &answers[number];
	while (number >= answers_room) {
		answers_room = answers_room ? 2 * answers_room : 1024;
		answers = realloc(answers, answers_room * sizeof(*answers));
		if (!answers)
			abort();
	}
	struct answer one = take_step(q, 0), other = take_step(q, 0xff);
	if (!one.wrong && memcmp(&one, &other, sizeof(one)))
		one.wrong = "a step depends on what another one has left in working memory";
	answers[number] = one;
	return &answers[number];
}

/* By what they say, not by number: numbers are given as a search goes, and a trail must be read in another process. */
static int goes_before(short a, short b)
{
	const struct bytes *x = bytes_of(&messages_seen, (u32)a), *y = bytes_of(&messages_seen, (u32)b);
	int differ = memcmp(x->at, y->at, x->length < y->length ? x->length : y->length);

	return differ ? differ < 0 : x->length < y->length;
}

static void put_in(short *flight, short message)
{
	int at = FLIGHT - 1;

	if (flight[at]) {
		wrong("too many messages under way");
		return;
	}
	for (; at && (!flight[at - 1] || goes_before(message, flight[at - 1])); at--)
		flight[at] = flight[at - 1];
	flight[at] = message;
}

void world_lost(short *flight, int place)
{
	for (; place < FLIGHT - 1; place++)
		flight[place] = flight[place + 1];
	flight[place] = 0;
}

/* Nothing is acknowledged to an end host that its peer has not received. */
static void ends_agree(const int *host)
{
	const struct stack *left = stack_of(host, 0), *right = stack_of(host, hosts - 1);

	if (left->end.snd_una > right->end.rcv_nxt || right->end.snd_una > left->end.rcv_nxt)
		wrong("an end host gets an acknowledgment of what its peer has not received");
}

/* What has happened, if somebody wants to read it; what is wrong, always. */
static void tell_of(const struct question *q, const struct answer *a)
{
	static const char *const doing[] = { "gets", "is asked", "sends", "grows old", "expires" };
	static const char *const asked[] = { "reconfigure", "repeat", "release", "cancel", "forget left", "forget right", "move" };

	if (getenv("WORLD_TRACE")) {
		printf("%u %s %s\n", q->who, doing[q->doing], q->doing == ASKS ? asked[q->what] : "");
		if (q->doing == ARRIVES)
			trace_message("<", bytes_of(&messages_seen, q->what)->at, bytes_of(&messages_seen, q->what)->length);
		for (u32 i = 0; i < a->outs; i++)
			trace_message(">", bytes_of(&messages_seen, (u32)a->out[i])->at, bytes_of(&messages_seen, (u32)a->out[i])->length);
		printf("  refusal %u told %u %u%s\n", a->refusal, a->told[1], a->told[2], a->stale ? " stale" : "");
	}
}

static u32 step(int *host, short *flight, int who, enum doing doing, int what, int t)
{
	struct question q = { (u32)host[who], (u32)who, doing, (u32)what, (u32)t, (u32)away };

	last = answer_to(&q);
	where = who;
	complaint = last->wrong;
	host[who] = (int)last->host;
	for (u32 i = 0; i < last->outs; i++)
		put_in(flight, last->out[i]);
	ends_agree(host);
	tell_of(&q, last);
	if (complaint)
		printf("wrong: %s\n", complaint);
	return last->refusal;
}

void world_arrives(int *host, short *flight, int place)
{
	static struct packet p;
	short message = flight[place];

	packet_of(&p, (u32)message);
	int who = host_of(&p);
	if (stack_payload(&p) && p.data[AT_TCP + 12] < 0xa0 && p.data[AT_OPTIONS] != OPTION_CONTROL)
		passed |= 1u << who;
	world_lost(flight, place);
	step(host, flight, who, ARRIVES, message, 0);
}

int world_asks(int *host, short *flight, int t, int what)
{
	int who = what == ASK_MOVE ? moving : what == ASK_FORGET_LEFT ? attempts[t].right : attempts[t].left;
	return (int)step(host, flight, who, ASKS, what, t);
}

void world_sends(int *host, short *flight, int who, int what) { step(host, flight, who, SENDS, what, 0); }
void world_ages(int *host, int who)
{
	short none[FLIGHT] = {};
	step(host, none, who, AGES, 0, 0);
}

const char *world_wrong(void) { return complaint; }
int world_told(int t) { return last ? (int)last->told[t] : 0; }
int world_where(void) { return where; }
int world_stale(void) { return last && last->stale; }

/* ---- looking at a host ---- */

static void look_at(const int *host, int who)
{
	const struct bytes *b = bytes_of(&hosts_seen, (u32)host[who]);

	memcpy(&stack, b->at, sizeof(stack));
	thaw(agent[who], b->at + sizeof(stack), b->length - sizeof(stack), 0);
}

static void look_away(int who)
{
	static u8 bytes[FROZEN_MOST];
	freeze(agent[who], bytes);
}

static u32 holds;
static long holds_step(void *table, u64 *nonce, struct session *s, void *context)
{
	(void)table, (void)context;
	for (u32 side = SIDE_LEFT; side <= SIDE_RIGHT; side++) {
		struct reconfig_key key = { *nonce, side, 0 };
		const struct reconfig *r = table_find(&here->reconfig, &key);
		int abandoned = r && r->phase < PHASE_READY && r->lock_ns < FROZEN_NOW; /* its lease has run out */
		holds |= r && !abandoned ? 1u << r->txid : 0;
	}
	holds |= s->lock && s->lock_until_ns > FROZEN_NOW ? 1u << s->txid : 0;
	holds |= s->held.txid ? 1u << s->held.txid : 0;
	return 0;
}

static u8 holds_of(const int *host, int who)
{
	static int known_number[WORLD_HOSTS];
	static u8 known[WORLD_HOSTS];

	if (known_number[who] == host[who])
		return known[who];
	look_at(host, who);
	holds = 0;
	here = agent[who];
	port_each_session(holds_step);
	look_away(who);
	known_number[who] = host[who];
	return known[who] = (u8)holds;
}

static u8 may_of(const int *host, int who)
{
	const struct end *e = &stack_of(host, who)->end;
	u32 bits = stack_closed(e) ? 1u << CLOSED : 0;

	for (u32 what = 0; what < CLOSED; what++)
		bits |= stack_can(e, what) ? 1u << what : 0;
	return (u8)bits;
}

void world_look(const int *host, unsigned char *holds_now, unsigned char *may)
{
	for (int i = 0; i < hosts + beside; i++) {
		holds_now[i] = holds_of(host, i);
		may[i] = is_end(i) ? may_of(host, i) : 0;
	}
}

/* ---- beginning and end ---- */

static struct stack starting[WORLD_HOSTS];

static void hop_add(int who, be32 to, be32 from)
{
	agent[who]->hop[++agent[who]->hops] = (struct next_hop){ .address = to, .ifindex = 1, .resolved = 1, .from = from };
}

static void agent_start(int i)
{
	agent[i] = agent_new(address[i], 1);
	for (int j = 0; j < hosts + beside; j++) /* in a fixed order, so that indices say nothing about the past */
		hop_add(i, address[j], address[i]);
}

void world_new(int chain, int others, int bytes_left, int bytes_right, int fins)
{
	hosts = chain;
	beside = others;
	starting[0].end = (struct end){ .bytes = (u32)bytes_left, .fin = (u32)fins };
	starting[hosts - 1].end = (struct end){ .bytes = (u32)bytes_right, .fin = (u32)fins };
	for (int i = 0; i < hosts + beside; i++)
		address[i] = be32_of(0x0a000001u + (u32)i);
	ends[0] = address[0];
	ends[1] = address[hosts - 1];
	for (int i = 0; i < hosts + beside; i++)
		agent_start(i);
	struct policy *p = agent_policy(agent[0], 0);
	agent_config(agent[0])->policy_slots = 1;
	*p = (struct policy){ .id = 1, .insns = 1, .filter = { { 6, 0, 0, 1 } } }; /* every SYN */
	for (int i = 1; i < hosts - 1; i++)
		p->chain[p->chain_length++] = address[i];
}

void world_moves(int who)
{
	if (!who)
		return;
	moving = who == 1 ? 0 : hosts - 1;
	second = be32_of(0x0a000101u);
	struct config *config = agent_config(agent[moving]);
	config->interfaces[config->interface_count++] = (struct interface){ 2, second };
	for (int i = 0; i < hosts + beside; i++)
		if (i != moving) {
			hop_add(i, second, address[i]);
			hop_add(moving, address[i], second);
		}
}

void world_attempt(int t, int left, int right, int through) { attempts[t] = (struct attempt){ left, right, through }; }

void world_closed(int *host)
{
	for (int i = 0; i < hosts + beside; i++)
		host[i] = (int)number_of(&hosts_seen, &starting[i], sizeof(starting[i]));
}

/* Until nothing is under way any more, and nobody has anything to acknowledge. */
static void quieten(int *host, short *flight)
{
	for (int again = 1; again && !complaint;) {
		again = 0;
		while (flight[0] && !complaint)
			world_arrives(host, flight, 0);
		for (int i = 0; i < hosts && !complaint; i += hosts - 1)
			if (stack_can(&stack_of(host, i)->end, SENDS_ACK)) {
				world_sends(host, flight, i, SENDS_ACK);
				again = 1;
			}
	}
}

void world_open(int *host)
{
	short flight[FLIGHT] = {};

	world_closed(host);
	world_sends(host, flight, 0, SENDS_SYN);
	quieten(host, flight);
}

/* Gives an end host a byte more to send, or the FIN, and sends it. */
static void one_more(int *host, short *flight, int who, int fin)
{
	static u8 bytes[MOST_BYTES];
	const struct bytes *before = bytes_of(&hosts_seen, (u32)host[who]);
	struct stack *s = (struct stack *)bytes;

	memcpy(bytes, before->at, before->length);
	s->end.bytes += !fin;
	s->end.fin = (u32)fin;
	host[who] = (int)number_of(&hosts_seen, bytes, before->length);
	passed = 1u << who;
	world_sends(host, flight, who, SENDS_BYTE);
	quieten(host, flight);
}

/* A byte each way, and then FINs. */
static void say_goodbye(int *host, short *flight, u32 chain)
{
	for (int fin = 0; fin < 2; fin++)
		for (int i = 0; i < hosts && !complaint; i += hosts - 1) {
			one_more(host, flight, i, fin);
			if (!fin && passed != chain)
				wrong("a byte does not go by the chain that the session has now");
		}
}

/* Sessions that are over are forgotten; silent ones, too, if they are asked for: it takes a look or two. */
static void forget(int *host, int who, int idle)
{
	short none[FLIGHT] = {};

	for (int i = 0; i < (idle ? 3 : 1); i++) {
		world_ages(host, who);
		step(host, none, who, EXPIRES, idle, 0);
	}
}

const char *world_end(const int *host, int chain, int moved)
{
	int at_end[WORLD_HOSTS];
	short flight[FLIGHT] = {};

	complaint = 0;
	away = moving >= 0 && moved;
	memcpy(at_end, host, sizeof(at_end));
	if (!stack_of(host, 0)->end.fin)
		say_goodbye(at_end, flight, (u32)chain);
	if (!stack_closed(&stack_of(at_end, 0)->end) || !stack_closed(&stack_of(at_end, hosts - 1)->end))
		wrong("the session does not end");
	for (int i = 0; i < hosts + beside && !complaint; i++) {
		for (int way = 0; way < 2; way++) {
			const struct watch *w = &stack_of(at_end, i)->watch[way];
			if (w->high > w->first && !w->begun)
				wrong("a middlebox has seen a stream without its beginning");
		}
		forget(at_end, i, i >= hosts); /* a middlebox may never hear that a new path was given up */
		if (bytes_of(&hosts_seen, (u32)at_end[i])->length != sizeof(struct stack))
			wrong("a table is not empty at the end");
	}
	away = 0;
	if (complaint)
		printf("wrong: %s\n", complaint);
	return complaint;
}
