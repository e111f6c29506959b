/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of bytes that is unique to its session and direction, so that a byte lost, repeated, out of order or from
 * another session shows: a counter through a mixing function.  Both ends hash it, the receiver also compares it.
 */
#ifndef BULK_STREAM_H
#define BULK_STREAM_H
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

struct stream {
	uint64_t key;
	uint64_t bytes;
	int64_t first_bad;      /* offset of the first wrong byte, -1: none */
	XXH3_state_t *hash;
};

int stream_open(struct stream *s, uint64_t seed, uint32_t session, int direction);
void stream_close(struct stream *s);

/* The n bytes of the stream that begin at `at`. */
void stream_fill(const struct stream *s, uint64_t at, char *to, size_t n);

/* n bytes have been sent, or received (then they are compared). */
void stream_sent(struct stream *s, const char *data, size_t n);
void stream_received(struct stream *s, const char *data, size_t n);

/* The hash of all bytes so far, 32 hexadecimal digits. */
void stream_digest(const struct stream *s, char text[33]);

#endif
