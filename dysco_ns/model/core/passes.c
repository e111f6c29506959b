/* SPDX-License-Identifier: Apache-2.0 */
/* What a pass at a host brings about: segments onto the wire, into its stack, and what that sends. */
#include <stdlib.h>

#include "hosts.h"

int host_of(const struct packet *p)
{
	be32 to;

	memcpy(&to, p->data + AT_IP + 16, 4);
	for (int i = 0; i < world.hosts + world.beside; i++)
		if ((world.address[i] == to && !(world.away && i == world.moving)) || (i == world.moving && world.second == to))
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
	if ((from != world.address[who] || (world.away && who == world.moving)) && !(who == world.moving && from == world.second))
		wrong("a host sends a segment that is not from it");
	if (host_of(p) < 0 || host_of(p) == who)
		wrong("a host sends a segment to nobody");
	if (sport == be16_of(STACK_CLIENT_PORT) || dport == be16_of(STACK_CLIENT_PORT))
		wrong("a segment has left the chain");
	if (!stack_sum_holds(p))
		wrong("a host sends a damaged segment");
	if (world.now->outs == FLIGHT)
		abort();
	world.now->out[world.now->outs++] = (short)number_of(&messages_seen, p->data, p->length);
	if (messages_seen.count > 32000)
		wrong("too many different messages");
}

static void into_stack(int who, struct packet *p)
{
	if (host_of(p) == who && !is_end(who))
		return; /* for the middlebox itself, which has no such session */
	if (!is_end(who)) {
		stack_forwards(world.stack.watch, world.ends[0], p);
		leave(who, p);
	} else if (stack_receives(&world.stack.end, who != 0, world.ends, p)) {
		leave(who, p);
	}
}

static void outbox(int who)
{
	struct packet *list[OUTBOX], *p;
	int n = 0;

	while ((p = agent_sent(world.agent[who])))
		list[n++] = p;
	for (int i = 0; i < n; i++) {
		if (list[i]->way == WAY_LOCAL)
			into_stack(who, list[i]);
		else
			onto_wire(who, list[i]);
		free(list[i]);
	}
}

void leave(int who, struct packet *p)
{
	enum way way = agent_egress(world.agent[who], p);

	outbox(who);
	if (way == WAY_ON || way == WAY_WIRE)
		onto_wire(who, p);
	else if (way == WAY_LOCAL)
		into_stack(who, p);
}

void arrive(int who, struct packet *p)
{
	enum way way = agent_ingress(world.agent[who], p);

	outbox(who);
	if (way == WAY_WIRE)
		onto_wire(who, p);
	else if (way != WAY_DROPPED)
		into_stack(who, p);
}

u32 ask(int who, const struct question *q)
{
	static const u32 kinds[ASK_KINDS] = { COMMAND_RECONFIGURE, COMMAND_REPEAT, COMMAND_RELEASE, COMMAND_CANCEL, COMMAND_FORGET_RECORD,
					 COMMAND_FORGET_RECORD, COMMAND_MOVE };
	_Static_assert(IS_BUSY == REFUSED_BUSY, "names.h");
	const struct attempt *a = &world.attempts[q->t];
	struct command c = { .kind = kinds[q->what], .txid = q->t, .side = q->what == ASK_FORGET_LEFT ? SIDE_LEFT : SIDE_RIGHT };
	struct five_tuple client = { world.ends[0], world.ends[1], be16_of(STACK_CLIENT_PORT), be16_of(STACK_PORT) }, back = reversed(&client);

	c.nonce = agent_nonce(world.agent[who], &client);
	c.nonce = c.nonce ? c.nonce : agent_nonce(world.agent[who], &back);
	c.tuple.src = world.second;
	c.right_anchor = world.address[a->right];
	if (a->through)
		c.chain[c.chain_length++] = world.address[a->through];
	u32 refusal = agent_command(world.agent[who], &c);
	outbox(who);
	return refusal;
}

void expire(int who, u32 idle)
{
	struct command c = { .kind = COMMAND_EXPIRE, .linger_ns = 1, .idle_ns = idle };
	agent_command(world.agent[who], &c);
}
