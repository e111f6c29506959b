/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The programs of core/datapath.h as functions of an agent. */
#include <stddef.h>

#include "port.h"
#include "segment.h"
#include "steps.h"

enum { HOST_FIRST_PORT = 20000, HOST_PORTS = 6384, COMMAND_ROOM = 512 };

static struct table table_of(u32 key_bytes, u32 value_bytes, u32 limit)
{
	return (struct table){ .key_bytes = key_bytes, .value_bytes = value_bytes, .limit = limit };
}

struct agent *agent_new(be32 address, u64 seed)
{
	struct agent *a = calloc(1, sizeof(*a));

	a->egress = table_of(sizeof(struct five_tuple), sizeof(struct entry), 2 * HOST_SESSIONS);
	a->ingress = table_of(sizeof(struct five_tuple), sizeof(struct entry), 3 * HOST_SESSIONS);
	a->session = table_of(sizeof(u64), sizeof(struct session), HOST_SESSIONS);
	a->reconfig = table_of(sizeof(struct reconfig_key), sizeof(struct reconfig), HOST_SESSIONS);
	a->member = table_of(sizeof(be32), sizeof(u64), MAX_TYPES * MAX_MEMBERS);
	a->random = seed;
	a->config = (struct config){
		.layout_version = LAYOUT_VERSION,
		.flags = CONFIG_EVENTS,
		.first_port = HOST_FIRST_PORT,
		.ports = HOST_PORTS,
		.domains = 1,
		.interface_count = 1,
		.interfaces = { { 1, address } },
	};
	return a;
}

static void bury(struct agent *a)
{
	table_free(a->graveyard);
	a->graveyard = 0;
}

void agent_free(struct agent *a)
{
	struct table *tables[] = { &a->egress, &a->ingress, &a->session, &a->reconfig, &a->member };

	for (u32 i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		for (u32 j = 0; j < BUCKETS; j++)
			table_free(tables[i]->bucket[j]);
	bury(a);
	for (struct packet *p; (p = agent_sent(a));)
		free(p);
	free(a);
}

struct config *agent_config(struct agent *a) { return &a->config; }
struct policy *agent_policy(struct agent *a, u32 slot) { return &a->policy[slot % POLICY_SLOTS]; }
void agent_set_time(struct agent *a, u64 now_ns) { a->now = now_ns; }

static void begin(struct agent *a, struct packet *p)
{
	here = a;
	a->sent = a->taken = 0;
	p->way = WAY_ON;
}

static enum way ended(struct agent *a, struct packet *p, int verdict)
{
	bury(a);
	return verdict == VERDICT_PASS ? WAY_ON : verdict == VERDICT_SENT ? (enum way)p->way : WAY_DROPPED;
}

enum way agent_egress(struct agent *a, struct packet *p)
{
	begin(a, p);
	return ended(a, p, steps(p, egress(p)));
}

enum way agent_egress_parked(struct agent *a, struct packet *p)
{
	a->from_parking = 1;
	enum way way = agent_egress(a, p);
	a->from_parking = 0;
	return way;
}

enum way agent_ingress(struct agent *a, struct packet *p)
{
	begin(a, p);
	return ended(a, p, steps(p, ingress(p)));
}

u32 agent_command(struct agent *a, const struct command *c)
{
	static _Thread_local struct packet p;

	begin(a, &p);
	memset(p.data, 0, COMMAND_ROOM);
	p.length = COMMAND_ROOM;
	p.gso_size = 0;
	p.tag = 0;
	((struct wire_ethernet *)p.data)->type = be16_of(ETHERTYPE_IPV4);
	memcpy(p.data + AT_IP, c, sizeof(*c));
	u32 refusal = command_run(&p);
	bury(a);
	return refusal;
}

struct packet *agent_sent(struct agent *a) { return a->taken < a->sent ? a->outbox[a->taken++] : 0; }

int agent_event(struct agent *a, struct event *event)
{
	if (a->heard == a->told)
		return 0;
	*event = a->event[a->heard++ % AGENT_EVENTS];
	return 1;
}

u64 agent_nonce(struct agent *a, const struct five_tuple *sent)
{
	const struct entry *e = table_find(&a->egress, sent);
	return e ? e->nonce : 0;
}

const struct session *agent_session(struct agent *a, u64 nonce) { return table_find(&a->session, &nonce); }

u32 agent_entries(struct agent *a) { return a->egress.count + a->ingress.count + a->session.count + a->reconfig.count; }
