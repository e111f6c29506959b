/* SPDX-License-Identifier: Apache-2.0 */
/* One step of one host: thaw, do, freeze.  Its outcome is remembered under what it was asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hosts.h"
#include "trace.h"

struct world world = { .moving = -1 };
struct numbers hosts_seen, messages_seen;

static struct numbers questions_seen;
static struct answer *answers;
static u32 answers_room;
static const struct answer *last;
static int where;               /* the last step was taken */

void wrong(const char *why)
{
	if (!world.complaint)
		world.complaint = why;
}

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
	case ASKS: world.now->refusal = ask(who, q); break;
	case SENDS:
		stack_sends(&world.stack.end, who != 0, world.ends, q->what, &p);
		leave(who, &p);
		break;
	case AGES: grow_old(world.agent[who]); break;
	case EXPIRES: expire(who, q->what); break;
	}
}

static struct answer take_step(const struct question *q, u8 rubbish)
{
	static u8 bytes[MOST_BYTES];
	const struct bytes *before = bytes_of(&hosts_seen, q->host);
	struct answer a = {};

	world.now = &a;
	world.complaint = 0;
	memcpy(&world.stack, before->at, sizeof(world.stack));
	thaw(world.agent[q->who], before->at + sizeof(world.stack), before->length - sizeof(world.stack), rubbish);
	act(q);
	hear((int)q->who);
	counted((int)q->who);
	world.now->stale |= (u32)overtakes(q);
	memcpy(bytes, &world.stack, sizeof(world.stack));
	a.host = number_of(&hosts_seen, bytes, (u32)sizeof(world.stack) + freeze(world.agent[q->who], bytes + sizeof(world.stack)));
	a.wrong = world.complaint;
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
	const struct stack *left = stack_of(host, 0), *right = stack_of(host, world.hosts - 1);

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

u32 step(int *host, short *flight, int who, enum doing doing, int what, int t)
{
	struct question q = { (u32)host[who], (u32)who, doing, (u32)what, (u32)t, (u32)world.away };

	last = answer_to(&q);
	where = who;
	world.complaint = last->wrong;
	host[who] = (int)last->host;
	for (u32 i = 0; i < last->outs; i++)
		put_in(flight, last->out[i]);
	ends_agree(host);
	tell_of(&q, last);
	if (world.complaint)
		printf("wrong: %s\n", world.complaint);
	return last->refusal;
}

void world_arrives(int *host, short *flight, int place)
{
	static struct packet p;
	short message = flight[place];

	packet_of(&p, (u32)message);
	int who = host_of(&p);
	if (stack_payload(&p) && p.data[AT_TCP + 12] < 0xa0 && p.data[AT_OPTIONS] != OPTION_CONTROL)
		world.passed |= 1u << who;
	world_lost(flight, place);
	step(host, flight, who, ARRIVES, message, 0);
}

int world_asks(int *host, short *flight, int t, int what)
{
	int who = what == ASK_MOVE ? world.moving : what == ASK_FORGET_LEFT ? world.attempts[t].right : world.attempts[t].left;
	return (int)step(host, flight, who, ASKS, what, t);
}

void world_sends(int *host, short *flight, int who, int what) { step(host, flight, who, SENDS, what, 0); }
void world_ages(int *host, int who)
{
	short none[FLIGHT] = {};
	step(host, none, who, AGES, 0, 0);
}

const char *world_wrong(void) { return world.complaint; }
int world_told(int t) { return last ? (int)last->told[t] : 0; }
int world_where(void) { return where; }
int world_stale(void) { return last && last->stale; }
