/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A hash table whose values stay where they are until the pass that drops them is over, as under RCU. */
#ifndef DYSCO_HOST_TABLE_H
#define DYSCO_HOST_TABLE_H
#include <stdlib.h>
#include <string.h>

#include "types.h"

enum { BUCKETS = 1024, KEY_ROOM = 16 };

struct node {
	struct node *next;
	u8 key[KEY_ROOM];
	u64 value[];
};

struct table {
	struct node *bucket[BUCKETS];
	u32 key_bytes, value_bytes, count, limit;
};

static u32 table_hash(const struct table *t, const void *key)
{
	const u8 *bytes = key;
	u32 h = 2166136261u;

	for (u32 i = 0; i < t->key_bytes; i++)
		h = (h ^ bytes[i]) * 16777619u;
	return (h ^ h >> 15) % BUCKETS;
}

static struct node **table_place(struct table *t, const void *key)
{
	struct node **at = &t->bucket[table_hash(t, key)];

	while (*at && memcmp((*at)->key, key, t->key_bytes))
		at = &(*at)->next;
	return at;
}

static void *table_find(struct table *t, const void *key)
{
	struct node *n = *table_place(t, key);
	return n ? n->value : 0;
}

static int table_put(struct table *t, const void *key, const void *value)
{
	struct node **at = table_place(t, key);

	if (!*at) {
		if (t->count >= t->limit)
			return -1;
		*at = calloc(1, sizeof(struct node) + t->value_bytes);
		memcpy((*at)->key, key, t->key_bytes);
		t->count++;
	}
	memcpy((*at)->value, value, t->value_bytes);
	return 0;
}

/* Takes an element out and puts it on the list of those that are freed after the pass. */
/* Non-zero: it was not there. */
static int table_drop(struct table *t, const void *key, struct node **graveyard)
{
	struct node **at = table_place(t, key), *n = *at;

	if (!n)
		return -1;
	*at = n->next;
	n->next = *graveyard;
	*graveyard = n;
	t->count--;
	return 0;
}

static void table_free(struct node *n)
{
	while (n) {
		struct node *next = n->next;
		free(n);
		n = next;
	}
}

#endif
