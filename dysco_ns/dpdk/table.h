/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table of one core, without locks: an index of buckets that fit a cache line, and nodes that never move.
 *
 * A bucket holds eight 16-bit signatures, compared at once, and the numbers of their nodes.  What finds no room goes to
 * the next bucket, and every bucket that it passed counts it in `beyond`: a search ends at the first bucket with none.
 * A node begins with its key, the value follows at NODE_VALUE.  A node that was dropped keeps its value and loses its
 * key until table_bury(): who still points to it finds what was there, a search does not find it.
 */
#ifndef DYSCO_DPDK_TABLE_H
#define DYSCO_DPDK_TABLE_H
#include <emmintrin.h>
#include <string.h>

#include "memory.h"
#include "types.h"

enum { NODE_KEY = 16, NODE_VALUE = 16, BUCKET_SLOTS = 8, BUCKET_FULL = 6 /* slots in use when the table is full, on average */ };

struct bucket {
	u16 signature[BUCKET_SLOTS];    /* 0: free slot */
	u32 node[BUCKET_SLOTS];
	u32 beyond;
	u32 spare[3];
};
_Static_assert(sizeof(struct bucket) == 64, "one cache line");

struct table {
	struct bucket *bucket;
	u8 *nodes;
	u32 *grave;             /* numbers of free nodes; behind them those that were dropped in this burst */
	u32 mask;               /* of buckets */
	u32 node_bytes, key_bytes, value_bytes;
	u32 most, count;
	u32 used;               /* nodes that were ever in use */
	u32 free, dropped;
	u64 seed[2];
};

/* Hash of a key of up to 16 bytes whose rest is zero: one wide multiplication, under a secret of this process, so that
 * nobody outside can choose five-tuples that meet. */
INLINE u64 table_hash(const struct table *t, u64 low, u64 high)
{
	unsigned __int128 product = (unsigned __int128)(low ^ t->seed[0]) * (high ^ t->seed[1]);

	return (u64)product ^ (u64)(product >> 64);
}

INLINE u32 table_home(const struct table *t, u64 hash) { return (u32)hash & t->mask; }
INLINE u16 table_signature(u64 hash) { return (u16)(hash >> 48) | 1; }
INLINE u8 *table_node(const struct table *t, u32 number, u32 node_bytes) { return t->nodes + (u64)number * node_bytes; }

/* Which slots of a bucket have this signature: two bits for each. */
INLINE u32 bucket_match(const struct bucket *b, u16 signature)
{
	__m128i have = _mm_load_si128((const __m128i *)b->signature);

	return (u32)_mm_movemask_epi8(_mm_cmpeq_epi16(have, _mm_set1_epi16((short)signature)));
}

INLINE int same_key(const u8 *node, u64 low, u64 high)
{
	u64 key[2];

	memcpy(key, node, NODE_KEY);
	return key[0] == low && key[1] == high;
}

/* The node of a key, 0: none.  `node_bytes` is the table's, where the compiler knows it. */
INLINE u8 *table_search(const struct table *t, u64 hash, u64 low, u64 high, u32 node_bytes)
{
	u16 signature = table_signature(hash);

	for (u32 at = table_home(t, hash);; at = (at + 1) & t->mask) {
		const struct bucket *b = &t->bucket[at];
		for (u32 match = bucket_match(b, signature); match; match &= match - 1, match &= match - 1) {
			u8 *node = table_node(t, b->node[(u32)__builtin_ctz(match) / 2], node_bytes);
			if (same_key(node, low, high))
				return node;
		}
		if (!b->beyond)
			return 0;
	}
}

/* The node that a key most likely has, by its signature alone; to be prefetched.  0: none, or further on. */
INLINE u8 *table_guess(const struct table *t, u64 hash, u32 node_bytes)
{
	const struct bucket *b = &t->bucket[table_home(t, hash)];
	u32 match = bucket_match(b, table_signature(hash));

	return match ? table_node(t, b->node[(u32)__builtin_ctz(match) / 2], node_bytes) : 0;
}

INLINE void table_words(const struct table *t, const void *key, u64 *low, u64 *high)
{
	u64 word[2] = {};

	memcpy(word, key, t->key_bytes);
	*low = word[0];
	*high = word[1];
}

/* ---- for every size of key and value ---- */

static void *table_find(const struct table *t, const void *key)
{
	u64 low, high;

	table_words(t, key, &low, &high);
	u8 *node = table_search(t, table_hash(t, low, high), low, high, t->node_bytes);
	return node ? node + NODE_VALUE : 0;
}

static int bucket_put(struct bucket *b, u16 signature, u32 number)
{
	u32 free = bucket_match(b, 0);

	if (!free)
		return -1;
	u32 slot = (u32)__builtin_ctz(free) / 2;
	b->signature[slot] = signature;
	b->node[slot] = number;
	return 0;
}

/* A free node.  The last of those dropped in this burst takes its place on the list. */
INLINE u32 table_number(struct table *t)
{
	if (!t->free)
		return t->used++;
	u32 number = t->grave[--t->free];
	if (t->dropped)
		t->grave[t->free] = t->grave[t->free + t->dropped];
	return number;
}

/* < 0: the table is full. */
static int table_put(struct table *t, const void *key, const void *value)
{
	void *there = table_find(t, key);
	u64 low, high;

	if (there) {
		memcpy(there, value, t->value_bytes);
		return 0;
	}
	if (t->count >= t->most || (!t->free && t->used >= t->most))
		return -1;
	u32 number = table_number(t);
	table_words(t, key, &low, &high);
	u8 *node = table_node(t, number, t->node_bytes);
	memcpy(node, &low, 8);
	memcpy(node + 8, &high, 8);
	memcpy(node + NODE_VALUE, value, t->value_bytes);
	u64 hash = table_hash(t, low, high);
	u32 at = table_home(t, hash);
	for (; bucket_put(&t->bucket[at], table_signature(hash), number); at = (at + 1) & t->mask)
		t->bucket[at].beyond++;
	t->count++;
	return 0;
}

/* Non-zero: it was not there. */
static int table_drop(struct table *t, const void *key)
{
	u64 low, high;

	table_words(t, key, &low, &high);
	u64 hash = table_hash(t, low, high);
	u8 *node = table_search(t, hash, low, high, t->node_bytes);
	if (!node)
		return -1;
	u32 number = (u32)((u64)(node - t->nodes) / t->node_bytes);
	for (u32 at = table_home(t, hash);; at = (at + 1) & t->mask) {
		struct bucket *b = &t->bucket[at];
		for (u32 slot = 0; slot < BUCKET_SLOTS; slot++) {
			if (!b->signature[slot] || b->node[slot] != number)
				continue;
			b->signature[slot] = 0;
			memset(node, 0, NODE_KEY);
			t->grave[t->free + t->dropped++] = number;
			t->count--;
			return 0;
		}
		b->beyond--;
	}
}

/* What was dropped since the last time may be used again: nobody points to it any more. */
INLINE void table_bury(struct table *t)
{
	t->free += t->dropped;
	t->dropped = 0;
}

/* The next node in use from number *at on, 0: no more. */
static u8 *table_next(const struct table *t, u32 *at)
{
	while (*at < t->used) {
		u8 *node = table_node(t, (*at)++, t->node_bytes);
		u64 key[2];
		memcpy(key, node, NODE_KEY);
		if (key[0] | key[1])
			return node;
	}
	return 0;
}

/* Room for `most` values; memory is taken when it is first used.  < 0: none left. */
static int table_make(struct table *t, u32 key_bytes, u32 value_bytes, u32 most, u32 align)
{
	u32 buckets = 1;

	while ((u64)buckets * BUCKET_FULL < most)
		buckets *= 2;
	*t = (struct table){ .mask = buckets - 1, .key_bytes = key_bytes, .value_bytes = value_bytes, .most = most };
	t->node_bytes = (NODE_VALUE + value_bytes + align - 1) / align * align;
	t->bucket = memory_take((u64)buckets * sizeof(struct bucket));
	t->nodes = memory_take((u64)most * t->node_bytes);
	t->grave = memory_take((u64)most * sizeof(u32));
	memory_random(t->seed, sizeof(t->seed));
	return t->bucket && t->nodes && t->grave ? 0 : -1;
}

#endif
