/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the daemon: reads of tables, writes of what is the daemon's, commands to the core. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "answers.h"
#include "ports.h"
#include "worker.h"

enum { READ_AT_ONCE = 64, FRAME_BYTES = 512, CURSOR_BYTES = 32 };

/* Where a table lies: in each agent (the cores' own), or in what they share: keyed, values in a row, or the places of members. */
enum where { OF_CORES, OF_ALL, ROW_OF_ALL, COUNTS, MEMBERS };

struct named {
	const char *name;
	enum where where;
	size_t at;              /* in struct agent or struct shared */
	u32 value_bytes;        /* of a row */
	u32 most;
};

#define ROW(name, member, type, n) { name, ROW_OF_ALL, offsetof(struct shared, member), sizeof(type), n }
#define KEYED(name, member) { name, OF_CORES, offsetof(struct agent, member), 0, 0 }
static const struct named tables[] = {
	KEYED("egress_table", egress),
	KEYED("ingress_table", ingress),
	KEYED("session_table", sessions.table),
	KEYED("reconfig_table", reconfig),
	{ "member_table", MEMBERS, 0, sizeof(u64), MEMBER_PLACES },
	{ "next_hop_index", OF_ALL, offsetof(struct shared, hop_index), 0, 0 },
	ROW("next_hop_table", hop, struct next_hop, MAX_NEXT_HOPS),
	ROW("next_hop_count", hops, u32, 1),
	ROW("config_table", config, struct config, 1),
	ROW("policy_table", policy, struct policy, MAX_POLICIES),
	ROW("key_table", key, struct hmac_key, MAX_DOMAINS * MAX_KEYS),
	ROW("type_table", type, struct middlebox_type, MAX_TYPES),
	{ "counter_table", COUNTS, 0, sizeof(u64), COUNTERS },
};

static const struct named *named(const char *name)
{
	for (u32 i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		if (!strcmp(tables[i].name, name))
			return &tables[i];
	return 0;
}

static int is_keyed(const struct named *t) { return t->where == OF_CORES || t->where == OF_ALL; }
static int is_sessions(const struct named *t) { return t->at == offsetof(struct agent, sessions.table) && t->where == OF_CORES; }

/* A keyed table's part at one core. */
static struct table *keyed(struct shared *s, const struct named *t, u32 core)
{
	return (struct table *)((t->where == OF_CORES ? (u8 *)s->agent[core] : (u8 *)s) + t->at);
}
static u32 parts(const struct shared *s, const struct named *t) { return t->where == OF_CORES ? s->spread.cores : 1; }

/* Sizes of a key and a value as the daemon sees them, and room. */
static void sizes(struct shared *s, const struct named *t, u32 *key, u32 *value, u32 *most)
{
	const struct table *k = is_keyed(t) ? keyed(s, t, 0) : 0;

	*key = k ? k->key_bytes : sizeof(u32);
	*value = !k ? t->value_bytes : is_sessions(t) ? sizeof(struct session) : k->value_bytes;
	*most = k ? k->most * parts(s, t) : t->most;
}

static u64 counted(const struct shared *s, u32 counter)
{
	u64 all = 0;

	for (u32 i = 0; i < s->spread.cores; i++)
		all += s->agent[i]->counter[counter];
	return all;
}

static int get_keyed(struct shared *s, const struct named *t, const void *key, void *to)
{
	void *value = 0;

	for (u32 i = 0; i < parts(s, t) && !value; i++)
		value = table_find(keyed(s, t, i), key);
	if (value && is_sessions(t))
		session_unpack(to, *(u64 **)value);
	else if (value)
		memcpy(to, value, keyed(s, t, 0)->value_bytes);
	return value != 0;
}

/* Copies a value out; 0: there is none. */
static int get(struct shared *s, const struct named *t, const void *key, void *to)
{
	u32 index;

	if (is_keyed(t))
		return get_keyed(s, t, key, to);
	memcpy(&index, key, sizeof(index));
	u64 number = 0, *of_member = t->where == MEMBERS ? member_find(&s->members, index, 0) : 0;
	if (t->where == ROW_OF_ALL && index < t->most) {
		memcpy(to, (u8 *)s + t->at + (u64)index * t->value_bytes, t->value_bytes);
		return 1;
	}
	if (t->where == COUNTS && index < t->most)
		number = counted(s, index);
	else if (of_member)
		number = *of_member;
	else
		return 0;
	memcpy(to, &number, sizeof(number));
	return 1;
}

/* Sessions, their entries and what is counted are the core's alone. */
static int put(struct shared *s, const struct named *t, const void *key, const void *value)
{
	u32 index;

	if (t->where == OF_ALL)
		return table_put(keyed(s, t, 0), key, value);
	memcpy(&index, key, sizeof(index));
	if (t->where != ROW_OF_ALL || index >= t->most)
		return -1;
	memcpy((u8 *)s + t->at + (u64)index * t->value_bytes, value, t->value_bytes);
	return 0;
}

static __attribute__((format(printf, 2, 3))) void say(struct request *q, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	q->answered = (u32)vsnprintf(q->answer, ANSWER_BYTES, format, arguments);
	va_end(arguments);
}

/* The next entries from *at on, up to `most`; *at gets 0 at the end.  A cursor's upper half is the core. */
static char *next_keyed(struct shared *s, const struct named *t, u64 *at, u32 most, char *to)
{
	u32 key, value, room, core = (u32)(*at >> 32), place = (u32)*at;

	sizes(s, t, &key, &value, &room);
	for (u32 n = 0; core < parts(s, t) && n < most;) {
		u8 *node = table_next(keyed(s, t, core), &place);
		if (!node) {
			core++;
			place = 0;
			continue;
		}
		memcpy(to, node, key);
		if (is_sessions(t))
			session_unpack((struct session *)(void *)(to + key), *(u64 **)(void *)(node + NODE_VALUE));
		else
			memcpy(to + key, node + NODE_VALUE, value);
		to += key + value;
		n++;
	}
	*at = core < parts(s, t) ? (u64)core << 32 | place : 0;
	return to;
}

static char *next_member(struct shared *s, u64 *at, u32 most, char *to)
{
	for (u32 n = 0; *at < MEMBER_PLACES && n < most; (*at)++) {
		const struct member *m = &s->members.place[*at];
		if (!m->address)
			continue;
		memcpy(to, &m->address, sizeof(m->address));
		memcpy(to + sizeof(m->address), &m->sessions, sizeof(m->sessions));
		to += sizeof(m->address) + sizeof(m->sessions);
		n++;
	}
	*at = *at < MEMBER_PLACES ? *at : 0;
	return to;
}

static void answer_next(struct shared *s, struct request *q, const struct named *t, u64 at)
{
	char *from = q->answer + CURSOR_BYTES, *to = from;

	to = is_keyed(t) ? next_keyed(s, t, &at, READ_AT_ONCE, to) : next_member(s, &at, READ_AT_ONCE, to);
	say(q, "ok %llu\n", at);
	memmove(q->answer + q->answered, from, (size_t)(to - from));
	q->answered += (u32)(to - from);
}

static int answer_run(struct shared *s, struct request *q, const char *frame, u32 n)
{
	int more;

	if (n < FRAME_IP || n > FRAME_BYTES) {
		say(q, "error a command of %u bytes\n", n);
		return 0;
	}
	u32 refusal = agents_command(s, frame, n, &more);
	say(q, "ok %u\n", refusal);
	return more && refusal == REFUSED_NOT;
}

static void answer_table(struct shared *s, struct request *q, const char *verb, const char *name, u64 at, const char *body)
{
	const struct named *t = named(name);
	u32 key, value, most, bytes = (u32)(q->text + q->bytes - body);

	if (!t) {
		say(q, "error no table %s\n", name);
		return;
	}
	sizes(s, t, &key, &value, &most);
	if (!strcmp(verb, "size")) {
		say(q, "ok %u %u %u\n", key, value, most);
	} else if (!strcmp(verb, "next") && (is_keyed(t) || t->where == MEMBERS)) {
		answer_next(s, q, t, at);
	} else if (!strcmp(verb, "get") && bytes == key) {
		say(q, "ok\n");
		if (get(s, t, body, q->answer + q->answered))
			q->answered += value;
		else
			say(q, "none\n");
	} else if (!strcmp(verb, "put") && bytes == key + value) {
		say(q, put(s, t, body, body + key) ? "error table %s is full, or the core's\n" : "ok\n", name);
	} else {
		say(q, "error %s %s with %u bytes: a key has %u, a value %u\n", verb, name, bytes, key, value);
	}
}

/* One more pair of ports: "attach WIRE HOST". */
static void answer_attach(struct shared *s, struct request *q, const char *text)
{
	char wire[256], host[256], why[WHY_BYTES];

	if (sscanf(text, "attach %255s %255s", wire, host) != 2)
		say(q, "error attach what to what?\n");
	else if (pair_add(s, wire, host, why))
		say(q, "error %s\n", why);
}

static void answer_release(struct shared *s, struct request *q, const char *body)
{
	u64 nonce = 0;

	if (q->text + q->bytes - body != sizeof(nonce)) {
		say(q, "error release needs a session\n");
		return;
	}
	memcpy(&nonce, body, sizeof(nonce));
	say(q, "ok %u\n", agents_release(s, nonce));
}

int answer(struct shared *s, struct request *q)
{
	char verb[8], name[24] = "";
	char *end = memchr(q->text, '\n', q->bytes);
	u64 at = 0;

	if (!end) {
		say(q, "error a request is a line\n");
		return 0;
	}
	*end = 0;
	if (sscanf(q->text, "%7s %23s %llu", verb, name, &at) < 1)
		verb[0] = 0;
	if (!strcmp(verb, "attach"))
		answer_attach(s, q, q->text);
	*end = '\n';
	if (!strcmp(verb, "run"))
		return answer_run(s, q, end + 1, (u32)(q->text + q->bytes - end - 1));
	if (!strcmp(verb, "stats")) {
		say(q, "ok\n");
		q->answered += answer_statistics(s, q->answer + q->answered, ANSWER_BYTES - q->answered);
	} else if (!strcmp(verb, "release")) {
		answer_release(s, q, end + 1);
	} else if (strcmp(verb, "attach")) {
		answer_table(s, q, verb, name, at, end + 1);
	}
	return 0;
}
