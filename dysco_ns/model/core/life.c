/* SPDX-License-Identifier: Apache-2.0 */
/* Beginning and end: hosts and what they know, the session opened and closed, tables empty. */
#include <stdio.h>
#include <string.h>

#include "hosts.h"

static struct stack starting[WORLD_HOSTS];

static void hop_add(int who, be32 to, be32 from)
{
	world.agent[who]->hop[++world.agent[who]->hops] = (struct next_hop){ .address = to, .ifindex = 1, .resolved = 1, .from = from };
}

static void agent_start(int i)
{
	world.agent[i] = agent_new(world.address[i], 1);
	for (int j = 0; j < world.hosts + world.beside; j++) /* in a fixed order, so that indices say nothing about the past */
		hop_add(i, world.address[j], world.address[i]);
}

void world_new(int chain, int others, int bytes_left, int bytes_right, int fins)
{
	world.hosts = chain;
	world.beside = others;
	starting[0].end = (struct end){ .bytes = (u32)bytes_left, .fin = (u32)fins };
	starting[world.hosts - 1].end = (struct end){ .bytes = (u32)bytes_right, .fin = (u32)fins };
	for (int i = 0; i < world.hosts + world.beside; i++)
		world.address[i] = be32_of(0x0a000001u + (u32)i);
	world.ends[0] = world.address[0];
	world.ends[1] = world.address[world.hosts - 1];
	for (int i = 0; i < world.hosts + world.beside; i++)
		agent_start(i);
	struct policy *p = agent_policy(world.agent[0], 0);
	agent_config(world.agent[0])->policy_slots = 1;
	*p = (struct policy){ .id = 1, .insns = 1, .filter = { { 6, 0, 0, 1 } } }; /* every SYN */
	for (int i = 1; i < world.hosts - 1; i++)
		p->chain[p->chain_length++] = world.address[i];
}

void world_moves(int who)
{
	if (!who)
		return;
	world.moving = who == 1 ? 0 : world.hosts - 1;
	world.second = be32_of(0x0a000101u);
	struct config *config = agent_config(world.agent[world.moving]);
	config->interfaces[config->interface_count++] = (struct interface){ 2, world.second };
	for (int i = 0; i < world.hosts + world.beside; i++)
		if (i != world.moving) {
			hop_add(i, world.second, world.address[i]);
			hop_add(world.moving, world.address[i], world.second);
		}
}

void world_attempt(int t, int left, int right, int through) { world.attempts[t] = (struct attempt){ left, right, through }; }

void world_closed(int *host)
{
	for (int i = 0; i < world.hosts + world.beside; i++)
		host[i] = (int)number_of(&hosts_seen, &starting[i], sizeof(starting[i]));
}

/* Until nothing is under way any more, and nobody has anything to acknowledge. */
static void quieten(int *host, short *flight)
{
	for (int again = 1; again && !world.complaint;) {
		again = 0;
		while (flight[0] && !world.complaint)
			world_arrives(host, flight, 0);
		for (int i = 0; i < world.hosts && !world.complaint; i += world.hosts - 1)
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
	world.passed = 1u << who;
	world_sends(host, flight, who, SENDS_BYTE);
	quieten(host, flight);
}

/* A byte each way, and then FINs. */
static void say_goodbye(int *host, short *flight, u32 chain)
{
	for (int fin = 0; fin < 2; fin++)
		for (int i = 0; i < world.hosts && !world.complaint; i += world.hosts - 1) {
			one_more(host, flight, i, fin);
			if (!fin && world.passed != chain)
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

	world.complaint = 0;
	world.away = world.moving >= 0 && moved;
	memcpy(at_end, host, sizeof(at_end));
	if (!stack_of(host, 0)->end.fin)
		say_goodbye(at_end, flight, (u32)chain);
	if (!stack_closed(&stack_of(at_end, 0)->end) || !stack_closed(&stack_of(at_end, world.hosts - 1)->end))
		wrong("the session does not end");
	for (int i = 0; i < world.hosts + world.beside && !world.complaint; i++) {
		for (int way = 0; way < 2; way++) {
			const struct watch *w = &stack_of(at_end, i)->watch[way];
			if (w->high > w->first && !w->begun)
				wrong("a middlebox has seen a stream without its beginning");
		}
		forget(at_end, i, i >= world.hosts); /* a middlebox may never hear that a new path was given up */
		if (bytes_of(&hosts_seen, (u32)at_end[i])->length != sizeof(struct stack))
			wrong("a table is not empty at the end");
	}
	world.away = 0;
	if (world.complaint)
		printf("wrong: %s\n", world.complaint);
	return world.complaint;
}
