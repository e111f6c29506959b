/* SPDX-License-Identifier: Apache-2.0 */
/* The session table.  A session at rest is packed: a mask of the words that are not zero, then these words; a third of
 * its size for most.  The fast path never looks at it.  Who asks for a session gets it unpacked, in one of a few places
 * that hold until the pass is over, when it is packed again.
 */
#ifndef DYSCO_DPDK_SESSIONS_H
#define DYSCO_DPDK_SESSIONS_H
#include "table.h"

enum { SESSION_WORDS = sizeof(struct session) / 8, MAX_OPEN = 32, BLOCK_WORDS = 2, BLOCK_KINDS = (SESSION_WORDS + 1) / BLOCK_WORDS + 1 };
_Static_assert(sizeof(struct session) % 8 == 0 && SESSION_WORDS <= 64, "the mask has a bit for each word");

struct open_session {
	u64 nonce;              /* 0: dropped meanwhile */
	struct session session;
};

struct sessions {
	struct table table;     /* nonce -> packed session */
	struct open_session open[MAX_OPEN];
	u32 opened;
	u8 *room, *room_end;    /* of packed sessions */
	u64 *free[BLOCK_KINDS + 1];     /* by size; the first word of a free block points to the next */
};

INLINE u32 block_kind(u32 words) { return (words + BLOCK_WORDS - 1) / BLOCK_WORDS; }
INLINE u32 packed_words(u64 mask) { return 1 + (u32)__builtin_popcountll(mask); }

static u64 *block_take(struct sessions *t, u32 kind)
{
	u64 *block = t->free[kind];

	if (block) {
		t->free[kind] = (u64 *)block[0];
		return block;
	}
	u32 bytes = kind * BLOCK_WORDS * 8;
	if (t->room + bytes > t->room_end)
		return 0;
	block = (u64 *)t->room;
	t->room += bytes;
	return block;
}

static void block_give(struct sessions *t, u64 *block, u32 kind)
{
	block[0] = (u64)t->free[kind];
	t->free[kind] = block;
}

INLINE u64 session_mask(const u64 *word)
{
	u64 mask = 0;

	for (u32 i = 0; i < SESSION_WORDS; i++)
		mask |= (u64)(word[i] != 0) << i;
	return mask;
}

static void session_pack(u64 *block, const struct session *s, u64 mask)
{
	const u64 *word = (const u64 *)s;

	*block++ = mask;
	for (u64 left = mask; left; left &= left - 1)
		*block++ = word[__builtin_ctzll(left)];
}

static void session_unpack(struct session *s, const u64 *block)
{
	u64 *word = (u64 *)s;

	memset(s, 0, sizeof(*s));
	u64 mask = *block++;
	for (u64 left = mask; left; left &= left - 1)
		word[__builtin_ctzll(left)] = *block++;
}

/* Writes a session over the packed one at *place (0: none yet).  < 0: no room. */
static int session_repack(struct sessions *t, u64 **place, const struct session *s)
{
	u64 mask = session_mask((const u64 *)s), *old = *place;
	u32 kind = block_kind(packed_words(mask)), old_kind = old ? block_kind(packed_words(old[0])) : 0;

	if (kind != old_kind) {
		u64 *block = block_take(t, kind);
		if (!block)
			return -1;
		if (old)
			block_give(t, old, old_kind);
		*place = block;
	}
	session_pack(*place, s, mask);
	return 0;
}

static struct open_session *session_opened(struct sessions *t, u64 nonce)
{
	for (u32 i = 0; i < t->opened; i++)
		if (t->open[i].nonce == nonce)
			return &t->open[i];
	return 0;
}

static struct session *sessions_find(struct sessions *t, u64 nonce)
{
	struct open_session *open = nonce ? session_opened(t, nonce) : 0;
	u64 **place = open || t->opened == MAX_OPEN ? 0 : table_find(&t->table, &nonce);

	if (place) {
		open = &t->open[t->opened++];
		open->nonce = nonce;
		session_unpack(&open->session, *place);
	}
	return open ? &open->session : 0;
}

static int sessions_put(struct sessions *t, u64 nonce, const struct session *s)
{
	struct open_session *open = session_opened(t, nonce);
	u64 *block = 0;

	if (open) {
		open->session = *s;
		return 0;
	}
	u64 **place = table_find(&t->table, &nonce);
	if (place)
		return session_repack(t, place, s);
	if (session_repack(t, &block, s))
		return -1;
	if (!table_put(&t->table, &nonce, &block))
		return 0;
	block_give(t, block, block_kind(packed_words(block[0])));
	return -1;
}

/* Non-zero: it was not there.  Who holds the unpacked session may still read it. */
static int sessions_drop(struct sessions *t, u64 nonce)
{
	u64 **place = table_find(&t->table, &nonce);
	struct open_session *open = session_opened(t, nonce);

	if (!place)
		return -1;
	block_give(t, *place, block_kind(packed_words((*place)[0])));
	table_drop(&t->table, &nonce);
	if (open)
		open->nonce = 0;
	return 0;
}

/* The pass is over: what it has opened is packed again. */
static void sessions_close(struct sessions *t)
{
	for (u32 i = 0; i < t->opened; i++) {
		u64 **place = t->open[i].nonce ? table_find(&t->table, &t->open[i].nonce) : 0;
		if (place && session_repack(t, place, &t->open[i].session))
			abort(); /* twice the room of all sessions at their largest is gone: a bug */
	}
	t->opened = 0;
	table_bury(&t->table);
}

static int sessions_make(struct sessions *t, u32 most)
{
	u64 room = 2ull * most * (BLOCK_KINDS * BLOCK_WORDS * 8);

	t->room = memory_take(room);
	t->room_end = t->room + room;
	return table_make(&t->table, sizeof(u64), sizeof(u64 *), most, 8) || !t->room ? -1 : 0;
}

#endif
