/* SPDX-License-Identifier: Apache-2.0 */
/* A frozen agent is a list of (table, key, value), sorted. */
#include "frozen.h"

#include <stdio.h>

enum { TABLES = 4, NODES = 64, RANDOM_SEED = 1 };
static const u64 LONG_AGO = 1; /* any lease from then has run out */

static struct table *table_at(struct agent *a, u32 i)
{
	struct table *all[TABLES] = { &a->egress, &a->ingress, &a->session, &a->reconfig };
	return all[i];
}

/* ---- times ---- */

static void round_time(u64 *at)
{
	if (*at && *at < FROZEN_NOW)
		*at = LONG_AGO;
}

static void grow_older(u64 *at)
{
	if (*at)
		*at = LONG_AGO;
}

static void each_time(struct agent *a, u32 table, void *value, void (*with)(u64 *))
{
	struct session *s = value;
	struct reconfig *r = value;

	if (table_at(a, table) == &a->session) {
		u64 *times[] = { &s->lock_until_ns, &s->beat_ns, &s->created_ns, &s->over_ns, &s->idle_since_ns };
		for (u32 i = 0; i < sizeof(times) / sizeof(*times); i++)
			with(times[i]);
	} else if (table_at(a, table) == &a->reconfig) {
		u64 *times[] = { &r->lock_ns, &r->ready_ns, &r->first_byte_ns, &r->drained_ns };
		for (u32 i = 0; i < sizeof(times) / sizeof(*times); i++)
			with(times[i]);
	}
}

void grow_old(struct agent *a)
{
	for (u32 t = 0; t < TABLES; t++)
		for (u32 i = 0; i < BUCKETS; i++)
			for (struct node *n = table_at(a, t)->bucket[i]; n; n = n->next)
				each_time(a, t, n->value, grow_older);
}

/* ---- tables ---- */

static void leave_out(struct agent *a, u32 table, void *value)
{
	struct entry *e = value;

	if (table_at(a, table) == &a->egress || table_at(a, table) == &a->ingress)
		e->packets = e->bytes = 0;
	each_time(a, table, value, round_time);
}

static int by_key(const void *a, const void *b)
{
	return memcmp((*(struct node *const *)a)->key, (*(struct node *const *)b)->key, KEY_ROOM);
}

static u32 take_out(struct table *t, struct node **nodes)
{
	u32 n = 0;

	for (u32 i = 0; i < BUCKETS && t->count; i++)
		for (; t->bucket[i]; t->count--) {
			if (n == NODES)
				abort();
			nodes[n++] = t->bucket[i];
			t->bucket[i] = t->bucket[i]->next;
		}
	qsort(nodes, n, sizeof(*nodes), by_key);
	return n;
}

u32 freeze(struct agent *a, u8 *to)
{
	u32 length = 0;

	for (u32 table = 0; table < TABLES; table++) {
		struct table *t = table_at(a, table);
		struct node *nodes[NODES];
		u32 n = take_out(t, nodes);
		for (u32 i = 0; i < n; i++) {
			if (length + 1 + KEY_ROOM + t->value_bytes > FROZEN_MOST)
				abort();
			leave_out(a, table, nodes[i]->value);
			to[length++] = (u8)table;
			memcpy(to + length, nodes[i]->key, t->key_bytes);
			memcpy(to + length + t->key_bytes, nodes[i]->value, t->value_bytes);
			length += t->key_bytes + t->value_bytes;
			free(nodes[i]);
		}
	}
	return length;
}

void thaw(struct agent *a, const u8 *from, u32 length, u8 rubbish)
{
	for (u32 at = 0; at < length;) {
		struct table *t = table_at(a, from[at++]);
		table_put(t, from + at, from + at + t->key_bytes);
		at += t->key_bytes + t->value_bytes;
	}
	memset(&a->scratch, rubbish, sizeof(a->scratch));
	memset(a->counter, 0, sizeof(a->counter));
	a->told = a->heard = 0;
	a->random = RANDOM_SEED;
	agent_set_time(a, FROZEN_NOW);
}
