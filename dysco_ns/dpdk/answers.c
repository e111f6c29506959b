/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the daemon: reads of tables, writes of what is the daemon's, commands to the core. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "answers.h"
#include "worker.h"

enum { READ_AT_ONCE = 64, FRAME_BYTES = 512 };

static const char *const counter_names[] = {
#include "counter_names.h"
};
_Static_assert(sizeof(counter_names) / sizeof(*counter_names) == COUNTERS, "a name for each counter");

/* A table of values in a row, or one with keys. */
struct named {
	const char *name;
	size_t at;              /* in struct agent */
	u32 value_bytes;
	u32 most;               /* 0: a struct table */
};

#define ROW(name, member, type, n) { name, offsetof(struct agent, member), sizeof(type), n }
#define KEYED(name, member) { name, offsetof(struct agent, member), 0, 0 }
static const struct named tables[] = {
	KEYED("egress_table", egress),
	KEYED("ingress_table", ingress),
	KEYED("session_table", sessions.table),
	KEYED("reconfig_table", reconfig),
	KEYED("member_table", member),
	KEYED("next_hop_index", hop_index),
	ROW("next_hop_table", hop, struct next_hop, MAX_NEXT_HOPS),
	ROW("next_hop_count", hops, u32, 1),
	ROW("config_table", config, struct config, 1),
	ROW("policy_table", policy, struct policy, POLICY_SLOTS),
	ROW("key_table", key, struct hmac_key, MAX_DOMAINS * MAX_KEYS),
	ROW("type_table", type, struct middlebox_type, MAX_TYPES),
	ROW("counter_table", counter, u64, COUNTERS),
};

static const struct named *named(const char *name)
{
	for (u32 i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		if (!strcmp(tables[i].name, name))
			return &tables[i];
	return 0;
}

static struct table *keyed(struct agent *a, const struct named *t) { return (struct table *)((u8 *)a + t->at); }
static int is_sessions(const struct agent *a, const struct table *t) { return t == &a->sessions.table; }

/* Sizes of a key and a value as the daemon sees them. */
static void sizes(struct agent *a, const struct named *t, u32 *key, u32 *value, u32 *most)
{
	const struct table *k = t->most ? 0 : keyed(a, t);

	*key = k ? k->key_bytes : sizeof(u32);
	*value = !k ? t->value_bytes : is_sessions(a, k) ? sizeof(struct session) : k->value_bytes;
	*most = k ? k->most : t->most;
}

/* Copies a value out; 0: there is none. */
static int get(struct agent *a, const struct named *t, const void *key, void *to)
{
	struct table *k = t->most ? 0 : keyed(a, t);
	u32 index;

	if (k) {
		void *value = table_find(k, key);
		if (value && is_sessions(a, k))
			session_unpack(to, *(u64 **)value);
		else if (value)
			memcpy(to, value, k->value_bytes);
		return value != 0;
	}
	memcpy(&index, key, sizeof(index));
	if (index >= t->most)
		return 0;
	memcpy(to, (u8 *)a + t->at + (u64)index * t->value_bytes, t->value_bytes);
	return 1;
}

static int put(struct agent *a, const struct named *t, const void *key, const void *value)
{
	struct table *k = t->most ? 0 : keyed(a, t);
	u32 index;

	if (k) /* sessions and their entries are the core's alone */
		return k == &a->hop_index || k == &a->member ? table_put(k, key, value) : -1;
	memcpy(&index, key, sizeof(index));
	if (index >= t->most)
		return -1;
	memcpy((u8 *)a + t->at + (u64)index * t->value_bytes, value, t->value_bytes);
	return 0;
}

static __attribute__((format(printf, 2, 3))) void say(struct request *q, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	q->answered = (u32)vsnprintf(q->answer, ANSWER_BYTES, format, arguments);
	va_end(arguments);
}

static void answer_next(struct agent *a, struct request *q, const struct named *t, u32 at)
{
	const struct table *k = keyed(a, t);
	u32 key, value, most, n = 0;

	sizes(a, t, &key, &value, &most);
	char *to = q->answer + 32;
	for (u8 *node; n < READ_AT_ONCE && (node = table_next(k, &at)); n++) {
		memcpy(to, node, key);
		if (is_sessions(a, k))
			session_unpack((struct session *)(void *)(to + key), *(u64 **)(node + NODE_VALUE));
		else
			memcpy(to + key, node + NODE_VALUE, value);
		to += key + value;
	}
	say(q, "ok %u\n", n < READ_AT_ONCE ? 0 : at);
	memmove(q->answer + q->answered, q->answer + 32, (size_t)(to - q->answer) - 32);
	q->answered += (u32)(to - q->answer) - 32;
}

static int answer_run(struct agent *a, struct request *q, const char *frame, u32 n)
{
	int more;

	if (n < FRAME_IP || n > FRAME_BYTES) {
		say(q, "error a command of %u bytes\n", n);
		return 0;
	}
	u32 refusal = agent_command(a, frame, n, &more);
	say(q, "ok %u\n", refusal);
	return more && refusal == REFUSED_NOT;
}

static void answer_table(struct agent *a, struct request *q, const char *verb, const char *name, u32 at, const char *body)
{
	const struct named *t = named(name);
	u32 key, value, most, bytes = (u32)(q->text + q->bytes - body);

	if (!t) {
		say(q, "error no table %s\n", name);
		return;
	}
	sizes(a, t, &key, &value, &most);
	if (!strcmp(verb, "size")) {
		say(q, "ok %u %u %u\n", key, value, most);
	} else if (!strcmp(verb, "next") && !t->most) {
		answer_next(a, q, t, at);
	} else if (!strcmp(verb, "get") && bytes == key) {
		say(q, "ok\n");
		if (get(a, t, body, q->answer + q->answered))
			q->answered += value;
		else
			say(q, "none\n");
	} else if (!strcmp(verb, "put") && bytes == key + value) {
		say(q, put(a, t, body, body + key) ? "error table %s is full, or the core's\n" : "ok\n", name);
	} else {
		say(q, "error %s %s with %u bytes: a key has %u, a value %u\n", verb, name, bytes, key, value);
	}
}

int answer(struct agent *a, struct request *q)
{
	char verb[8], name[24] = "";
	char *end = memchr(q->text, '\n', q->bytes);
	u32 at = 0;

	if (!end) {
		say(q, "error a request is a line\n");
		return 0;
	}
	*end = 0;
	if (sscanf(q->text, "%7s %23s %u", verb, name, &at) < 1)
		verb[0] = 0;
	*end = '\n';
	if (!strcmp(verb, "run"))
		return answer_run(a, q, end + 1, (u32)(q->text + q->bytes - end - 1));
	if (!strcmp(verb, "stats")) {
		say(q, "ok\n");
		q->answered += answer_statistics(a, q->answer + q->answered, ANSWER_BYTES - q->answered);
	} else {
		answer_table(a, q, verb, name, at, end + 1);
	}
	return 0;
}

u32 answer_statistics(const struct agent *a, char *to, u32 room)
{
	u32 n = (u32)snprintf(to, room, "{\"schema\": 1, \"sessions\": %u, \"pairs\": [", a->sessions.table.count);

	for (u32 i = 0; i < a->pairs; i++) {
		const struct pair *p = &a->pair[i];
		n += (u32)snprintf(to + n, room - n,
				   "%s{\"ifindex\": %u, \"from_wire\": %llu, \"from_host\": %llu, \"to_wire\": %llu, "
				   "\"to_host\": %llu, \"lost_to_wire\": %llu, \"lost_to_host\": %llu}",
				   i ? ", " : "", p->ifindex, p->from_wire, p->from_host, p->wire.sent, p->host.sent, p->wire.lost,
				   p->host.lost);
	}
	n += (u32)snprintf(to + n, room - n, "], \"counters\": {");
	for (u32 i = 1, any = 0; i < COUNTERS; i++)
		if (a->counter[i])
			n += (u32)snprintf(to + n, room - n, "%s\"%s\": %llu", any++ ? ", " : "", counter_names[i], a->counter[i]);
	return n + (u32)snprintf(to + n, room - n, "}}\n");
}
