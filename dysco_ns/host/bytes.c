/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Agents for callers that know no C structures: frames are bytes, tables are known by the names that they have in the kernel. */
#include <stddef.h>

#include "bytes.h"
#include "port.h"

struct view {
	const char *name;
	struct table *table;    /* or an array, of `count` values */
	void *array;
	u32 bytes, count;
};

#define ARRAY(text, at) { .name = text, .array = (at), .bytes = sizeof(*(at)), .count = sizeof(at) / sizeof(*(at)) }

static struct view view_of(struct agent *a, const char *name)
{
	const struct view views[] = {
		{ .name = "egress_table", .table = &a->egress }, { .name = "ingress_table", .table = &a->ingress },
		{ .name = "session_table", .table = &a->session }, { .name = "reconfig_table", .table = &a->reconfig },
		{ .name = "member_table", .table = &a->member }, ARRAY("policy_table", a->policy), ARRAY("key_table", a->key),
		ARRAY("type_table", a->type), ARRAY("counter_table", a->counter), ARRAY("next_hop_table", a->hop),
		{ .name = "config_table", .array = &a->config, .bytes = sizeof(a->config), .count = 1 },
	};

	for (u32 i = 0; i < sizeof(views) / sizeof(*views); i++)
		if (!strcmp(views[i].name, name))
			return views[i];
	return (struct view){};
}

u32 bytes_most(struct agent *a, const char *name)
{
	struct view v = view_of(a, name);
	return v.table ? v.table->limit : v.count;
}

u32 bytes_of_value(struct agent *a, const char *name)
{
	struct view v = view_of(a, name);
	return v.table ? v.table->value_bytes : v.bytes;
}

static void *place(const struct view *v, const void *key)
{
	u32 i;

	if (v->table)
		return table_find(v->table, key);
	memcpy(&i, key, sizeof(i));
	return i < v->count ? (u8 *)v->array + i * v->bytes : 0;
}

const void *bytes_get(struct agent *a, const char *name, const void *key)
{
	struct view v = view_of(a, name);
	return place(&v, key);
}

int bytes_put(struct agent *a, const char *name, const void *key, const void *value)
{
	struct view v = view_of(a, name);

	if (v.table)
		return table_put(v.table, key, value);
	void *at = place(&v, key);
	return at ? (memcpy(at, value, v.bytes), 0) : -1;
}

u32 bytes_keys(struct agent *a, const char *name, u8 *to)
{
	struct view v = view_of(a, name);
	u32 n = 0;

	for (u32 i = 0; v.table && i < BUCKETS; i++)
		for (struct node *node = v.table->bucket[i]; node; node = node->next)
			memcpy(to + v.table->key_bytes * n++, node->key, v.table->key_bytes);
	return n;
}

static struct packet in_hand;

static int into(u8 *data, u32 *length, u64 *tag, const struct packet *p, enum way way)
{
	memcpy(data, p->data, p->length);
	*length = p->length;
	*tag = p->tag;
	return (int)way;
}

int bytes_pass(struct agent *a, enum pass pass, u8 *data, u32 *length, u64 *tag)
{
	enum way (*const run[])(struct agent *, struct packet *) = { agent_egress, agent_egress_parked, agent_ingress };
	struct packet *p = &in_hand;

	memset(p, 0, offsetof(struct packet, data));
	memcpy(p->data, data, *length);
	p->length = *length;
	p->tag = *tag;
	enum way way = run[pass](a, p);
	return into(data, length, tag, p, way);
}

int bytes_sent(struct agent *a, u8 *data, u32 *length, u64 *tag)
{
	struct packet *p = agent_sent(a);

	if (!p)
		return -1;
	int way = into(data, length, tag, p, (enum way)p->way);
	free(p);
	return way;
}
