/* SPDX-License-Identifier: Apache-2.0 */
/* Where HTTP/1 messages of a stream begin and end: which of its bytes a proxy may write anew (headers), and which it passes
 * (content).  A stream that does not begin as HTTP is content from its first byte on, and so is one after an upgrade.
 */
#ifndef MESSAGES_H
#define MESSAGES_H
#include <stddef.h>
#include <stdint.h>

enum framing {
	FRAMING_UNKNOWN,        /* too few bytes to tell */
	FRAMING_PLAIN,          /* not HTTP: content without an end */
	FRAMING_TUNNEL,         /* content without an end, after an upgrade or CONNECT */
	FRAMING_HEADER,
	FRAMING_LENGTH,         /* a body of known length */
	FRAMING_UNTIL_END,      /* a body that ends with the connection */
	FRAMING_CHUNKED,        /* a body in chunks: a proxy may cut them anew */
	FRAMING_REST,           /* between two messages */
};

enum { LINE_BYTES = 160, HEADER_BYTES = 64 * 1024 };

struct messages {
	enum framing framing;
	int response;           /* which kind of message this stream carries */
	uint64_t at;            /* bytes taken so far */
	uint64_t content_at;    /* where the current content began */
	uint64_t left;          /* FRAMING_LENGTH: bytes to come */
	uint64_t length;        /* ... of all */
	uint32_t header, lines; /* bytes and lines of the header so far */
	int status;
	int has_length, chunked, upgrade, connect, head, last;   /* of the current message; last: none follows it */
	uint32_t line_length;   /* of the current header line; what is beyond LINE_BYTES is not kept */
	char line[LINE_BYTES + 1];
};

void messages_start(struct messages *m, int response, int plain);

/* Takes bytes up to the next place where content begins or a message ends.  Returns how many, at least one; *fresh is 1 if
 * content begins right after them.  `request`: the stream that the responses of this one answer, or 0. */
size_t messages_take(struct messages *m, const struct messages *request, const char *data, size_t n, int *fresh);

/* The same for bytes that are not at hand.  < 0: they would have been a header's. */
int messages_skip(struct messages *m, size_t n);

int messages_endless(const struct messages *m);

#endif
