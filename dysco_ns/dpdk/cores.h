/* SPDX-License-Identifier: Apache-2.0 */
/* Which core has a session: one, for both directions and all that belongs to it.
 *
 * Every five-tuple has a core where its frames arrive: by Toeplitz's hash under a key that repeats every 16 bits, so that
 * both directions hash alike.  NICs spread frames by it (RSS); where a port cannot, the cores do it themselves and hand
 * frames on.  A session is its host-side five-tuple's core's, and a subsession that begins here gets a port by which it
 * hashes there too.  What hashes elsewhere (the subsession that a neighbour has chosen, what a NAT or proxy here has
 * changed) is claimed: the core where its frames arrive notes whose they are.  That note is all that cores share of sessions.
 */
#ifndef DYSCO_DPDK_CORES_H
#define DYSCO_DPDK_CORES_H
#include <pthread.h>

#include "table.h"
#include "wire.h"

enum {
	MAX_CORES = 16,
	SPREAD = 64,            /* places of the RSS table that differ */
	RSS_WORD = 0x6d5a,      /* the key, over and over */
};

/* Five-tuples that arrive here and are another core's: by direction, as in struct agent.hint. */
struct claims {
	struct table of[2];
	pthread_mutex_t lock;
};

/* The low bits of the hash are linear in the sum (without carry) of the tuple's 16-bit words: by the sum's two bytes. */
struct spread {
	u32 cores;
	u8 part[2][256];
	u8 core[SPREAD];
};

INLINE u32 rss_of_word(u32 word)
{
	u32 hash = 0;

	for (u32 bit = 0; bit < 16; bit++)
		if (word & 0x8000u >> bit)
			hash ^= RSS_WORD << bit | RSS_WORD >> (16 - bit);
	return hash & 0xffff;
}

static void spread_make(struct spread *s, u32 cores)
{
	s->cores = cores;
	for (u32 i = 0; i < 256; i++) {
		s->part[0][i] = (u8)(rss_of_word(i << 8) % SPREAD); /* words lie in network order */
		s->part[1][i] = (u8)(rss_of_word(i) % SPREAD);
	}
	for (u32 i = 0; i < SPREAD; i++)
		s->core[i] = (u8)(i % cores);
}

/* Where frames of a five-tuple arrive; the same for both directions. */
INLINE u32 core_of_words(const struct spread *s, u64 addresses, u32 ports)
{
	u32 sum = (u32)addresses ^ (u32)(addresses >> 32) ^ ports;

	sum ^= sum >> 16;
	return s->core[s->part[0][sum & 255] ^ s->part[1][sum >> 8 & 255]];
}

INLINE u32 core_of(const struct spread *s, const struct five_tuple *t)
{
	return core_of_words(s, t->src ^ t->dst, (u32)(t->sport ^ t->dport));
}

static int claims_make(struct claims *c, u32 most)
{
	pthread_mutexattr_t kind;

	pthread_mutexattr_init(&kind);
	pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ADAPTIVE_NP); /* who holds it may be off its processor */
	pthread_mutex_init(&c->lock, &kind);
	return table_make(&c->of[0], sizeof(struct five_tuple), sizeof(u64), most, 8) ||
	       table_make(&c->of[1], sizeof(struct five_tuple), sizeof(u64), most, 8);
}

/* < 0: another core has it, or there is no room. */
static int claim_put(struct claims *c, u32 arriving, const struct five_tuple *key, u64 core)
{
	pthread_mutex_lock(&c->lock);
	u64 *now = table_find(&c->of[arriving], key);
	int failed = now ? *now != core : table_put(&c->of[arriving], key, &core);
	pthread_mutex_unlock(&c->lock);
	return failed ? -1 : 0;
}

static void claim_drop(struct claims *c, u32 arriving, const struct five_tuple *key, u64 core)
{
	pthread_mutex_lock(&c->lock);
	u64 *now = table_find(&c->of[arriving], key);
	if (now && *now == core && !table_drop(&c->of[arriving], key))
		table_bury(&c->of[arriving]);
	pthread_mutex_unlock(&c->lock);
}

#endif
