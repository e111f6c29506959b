/* SPDX-License-Identifier: Apache-2.0 */
/* One proxied session: two sockets, and a bounded buffer for each direction. */
#ifndef RELAY_H
#define RELAY_H
#include <stddef.h>
#include <stdint.h>

enum { INNER, OUTER };          /* the accepted socket, the connected one */

struct session;

/* What epoll hands back: an end of a session, a listener or the control socket. */
struct source {
	enum source_kind { SOURCE_LISTENER, SOURCE_END, SOURCE_CONTROL, SOURCE_CLIENT } kind;
	int fd;
	struct session *session;
	int side;
	uint32_t watched;       /* epoll events asked for */
};

/* Bytes on their way from one end to the other. */
struct flow {
	char *buffer;
	size_t from, to;        /* filled part */
	uint64_t bytes;         /* read so far */
	int ended;              /* end of file was read */
	int passed;             /* ... and passed on */
};

struct session {
	struct source end[2];
	struct flow flow[2];    /* [INNER]: from the accepted to the connected socket */
	int port;               /* the listening port it came by */
	int connected, spliced, broken;
	struct session *next, *previous;
};

/* Moves what can be moved now.  Returns 0 while the session lives, 1 when both directions have ended, -1 on error. */
int relay(struct session *s, size_t capacity);

/* The epoll events that `side` waits for. */
uint32_t relay_wants(const struct session *s, int side, size_t capacity);

#endif
