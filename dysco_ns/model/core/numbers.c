/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table with linear probing, never more than half full. */
#include "numbers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 1024 };

static void *room_for(void *was, size_t bytes)
{
	void *got = realloc(was, bytes);

	if (!got) {
		fprintf(stderr, "no memory for %zu bytes\n", bytes);
		exit(1);
	}
	return got;
}

static uint32_t hash(const uint8_t *bytes, uint32_t length)
{
	uint64_t h = length * 0x9e3779b97f4a7c15u;

	for (; length >= 8; bytes += 8, length -= 8) {
		uint64_t word;
		memcpy(&word, bytes, 8);
		h = (h ^ word) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	for (; length; length--)
		h = (h ^ *bytes++) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 29);
}

static uint32_t *place(const struct numbers *n, const void *bytes, uint32_t length)
{
	uint32_t at = hash(bytes, length) & (n->slots - 1);

	for (;; at = (at + 1) & (n->slots - 1)) {
		uint32_t number = n->slot[at];
		if (!number || (n->kept[number]->length == length && !memcmp(n->kept[number]->at, bytes, length)))
			return &n->slot[at];
	}
}

static void grow(struct numbers *n)
{
	n->room = n->room ? 2 * n->room : FIRST_ROOM;
	n->slots = 2 * n->room;
	n->kept = room_for(n->kept, n->room * sizeof(*n->kept));
	n->slot = room_for(n->slot, n->slots * sizeof(*n->slot));
	memset(n->slot, 0, n->slots * sizeof(*n->slot));
	for (uint32_t i = 1; i <= n->count; i++)
		*place(n, n->kept[i]->at, n->kept[i]->length) = i;
}

uint32_t number_of(struct numbers *n, const void *bytes, uint32_t length)
{
	if (n->count + 1 >= n->room)
		grow(n);
	uint32_t *at = place(n, bytes, length);
	if (*at)
		return *at;
	struct bytes *kept = room_for(0, sizeof(*kept) + length);
	kept->length = length;
	memcpy(kept->at, bytes, length);
	n->kept[++n->count] = kept;
	return *at = n->count;
}

const struct bytes *bytes_of(const struct numbers *n, uint32_t number) { return n->kept[number]; }
