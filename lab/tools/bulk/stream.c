/* SPDX-License-Identifier: Apache-2.0 */
#include "stream.h"

#include <stdio.h>
#include <string.h>

enum { CHUNK = 16384 };

/* splitmix64 (Steele, Lea, Flood 2014): any position can be computed by itself. */
static uint64_t word(uint64_t key, uint64_t index)
{
	uint64_t z = key + index * 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

int stream_open(struct stream *s, uint64_t seed, uint32_t session, int direction)
{
	s->key = word(seed, (uint64_t)session * 2 + (uint64_t)direction + 1);
	s->bytes = 0;
	s->first_bad = -1;
	s->hash = XXH3_createState();
	return s->hash && XXH3_128bits_reset(s->hash) == XXH_OK ? 0 : -1;
}

void stream_close(struct stream *s)
{
	XXH3_freeState(s->hash);
	s->hash = NULL;
}

void stream_fill(const struct stream *s, uint64_t at, char *to, size_t n)
{
	while (n) {
		uint64_t value = word(s->key, at / 8);
		size_t skip = at % 8, take = 8 - skip < n ? 8 - skip : n;
		memcpy(to, (char *)&value + skip, take);
		to += take, at += take, n -= take;
	}
}

void stream_sent(struct stream *s, const char *data, size_t n)
{
	XXH3_128bits_update(s->hash, data, n);
	s->bytes += n;
}

static void compare(struct stream *s, const char *data, size_t n)
{
	static char expected[CHUNK];

	for (size_t at = 0; at < n && s->first_bad < 0;) {
		size_t take = n - at < CHUNK ? n - at : CHUNK;
		stream_fill(s, s->bytes + at, expected, take);
		if (memcmp(data + at, expected, take))
			for (size_t i = 0; i < take && s->first_bad < 0; i++)
				if (data[at + i] != expected[i])
					s->first_bad = (int64_t)(s->bytes + at + i);
		at += take;
	}
}

void stream_received(struct stream *s, const char *data, size_t n)
{
	compare(s, data, n);
	stream_sent(s, data, n);
}

void stream_digest(const struct stream *s, char text[33])
{
	XXH128_hash_t digest = XXH3_128bits_digest(s->hash);

	snprintf(text, 33, "%016llx%016llx", (unsigned long long)digest.high64, (unsigned long long)digest.low64);
}
