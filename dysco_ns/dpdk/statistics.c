/* SPDX-License-Identifier: Apache-2.0 */
/* What has passed, what was lost and why: of all cores together, and of each. */
#include <stdarg.h>
#include <stdio.h>

#include "answers.h"

static const char *const counter_names[] = {
#include "counter_names.h"
};
_Static_assert(sizeof(counter_names) / sizeof(*counter_names) == COUNTERS, "a name for each counter");

struct text {
	char *to;
	u32 room, bytes;
};

static __attribute__((format(printf, 2, 3))) void write_json(struct text *t, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	t->bytes += (u32)vsnprintf(t->to + t->bytes, t->room - t->bytes, format, arguments);
	va_end(arguments);
	t->bytes = RTE_MIN(t->bytes, t->room - 1);
}

static void add_pair(struct pair *to, const struct pair *p)
{
	to->ifindex = p->ifindex;
	to->wire.port = p->wire.port;
	to->host.port = p->host.port;
	to->from_wire += p->from_wire;
	to->from_host += p->from_host;
	to->wire.sent += p->wire.sent;
	to->host.sent += p->host.sent;
	to->wire.lost += p->wire.lost;
	to->host.lost += p->host.lost;
}

static void write_pair(struct text *t, const struct pair *p)
{
	write_json(t,
		   "{\"ifindex\": %u, \"from_wire\": %llu, \"from_host\": %llu, \"to_wire\": %llu, \"to_host\": %llu, "
		   "\"lost_to_wire\": %llu, \"lost_to_host\": %llu",
		   p->ifindex, p->from_wire, p->from_host, p->wire.sent, p->host.sent, p->wire.lost, p->host.lost);
}

/* What a port has had and we have not: its queues were full, or there were no frames to put it in. */
static u64 missed(u16 port)
{
	struct rte_eth_stats stats;

	return rte_eth_stats_get(port, &stats) ? 0 : stats.imissed + stats.rx_nombuf;
}

static void write_counters(struct text *t, const u64 *counter)
{
	write_json(t, "\"counters\": {");
	for (u32 i = 1, any = 0; i < COUNTERS; i++)
		if (counter[i])
			write_json(t, "%s\"%s\": %llu", any++ ? ", " : "", counter_names[i], counter[i]);
	write_json(t, "}");
}

static void write_core(struct text *t, const struct agent *a)
{
	u64 lost = 0;

	for (u32 i = 0; i < a->shared->spread.cores; i++)
		lost += a->to[i].lost;
	write_json(t, "{\"sessions\": %u, \"entries\": %u, \"handed_on\": %llu, \"lost_to_cores\": %llu, \"pairs\": [",
		   a->sessions.table.count, a->egress.count + a->ingress.count, a->handed, lost);
	for (u32 i = 0; i < a->pairs; i++) {
		write_json(t, "%s", i ? ", " : "");
		write_pair(t, &a->pair[i]);
		write_json(t, "}");
	}
	write_json(t, "], ");
	write_counters(t, a->counter);
	write_json(t, "}");
}

u32 answer_statistics(const struct shared *s, char *to, u32 room)
{
	struct text t = { to, room, 0 };
	struct pair pairs[MAX_PAIRS] = {};
	u64 counter[COUNTERS] = {};
	u32 sessions = 0;

	for (u32 core = 0; core < s->spread.cores; core++) {
		const struct agent *a = s->agent[core];
		sessions += a->sessions.table.count;
		for (u32 i = 0; i < a->pairs; i++)
			add_pair(&pairs[i], &a->pair[i]);
		for (u32 i = 0; i < COUNTERS; i++)
			counter[i] += a->counter[i];
	}
	write_json(&t, "{\"schema\": 1, \"sessions\": %u, \"pairs\": [", sessions);
	for (u32 i = 0; i < s->pairs; i++) {
		write_json(&t, "%s", i ? ", " : "");
		write_pair(&t, &pairs[i]);
		write_json(&t, ", \"wire\": \"%s\", \"host\": \"%s\", \"missed_from_wire\": %llu, \"missed_from_host\": %llu}",
			   s->device[i][0], s->device[i][1], missed(pairs[i].wire.port), missed(pairs[i].host.port));
	}
	write_json(&t, "], ");
	write_counters(&t, counter);
	write_json(&t, ", \"cores\": [");
	for (u32 core = 0; core < s->spread.cores; core++) {
		write_json(&t, "%s", core ? ", " : "");
		write_core(&t, s->agent[core]);
	}
	write_json(&t, "]}\n");
	return t.bytes;
}
