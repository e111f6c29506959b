/* SPDX-License-Identifier: Apache-2.0 */
/* What the sockets of a process carry from one to the other, as its system calls show it (docs/libdysco.md).
 *
 * Every byte that is read is kept until it is seen to leave by the partner.  So at any time the library knows which bytes are
 * inside the process, and that all that have left are those that came, in order.
 */
#ifndef PRELOAD_RELAY_H
#define PRELOAD_RELAY_H
#include "messages.h"

enum { MAX_FD = 65536, MOST_HELD = 256 * 1024, PLACES = 32, LEAST_MATCH = 64 };

/* Bytes [at, at + length) of what was read from a socket were put into memory at `memory`. */
struct place {
	const char *memory;
	size_t length;
	uint64_t at;
	uint64_t serial;
};

/* Bytes of a stream that are inside the process: first those in memory, then those in a pipe. */
struct held {
	char *bytes;
	size_t from, to, room;
	size_t in_pipe;
	size_t ahead;           /* of those in memory: we have sent them in the place of a process that waits for more */
	uint64_t at;            /* position in the stream of the first */
	int lost;               /* there were more than we keep, or they were read in a way that we do not follow */
};

enum kind { ACCEPTED = 1, CONNECTED };

/* A TCP socket of this process. */
struct end {
	int fd;
	enum kind kind;
	uint64_t serial;        /* tells it from others that have had its descriptor */
	int port;               /* ACCEPTED: the local port */
	uint64_t read, written;
	struct messages in, out;
	struct held held;       /* read from here, not yet written to the partner */
	struct place place[PLACES];
	unsigned places;
	struct end *partner;
	int proven;             /* that it is the partner: by memory or by a pipe, not by equal bytes alone */
	uint64_t stuck_at;      /* what had been read and sent when we last looked */
	int differs;            /* what was written here is not what came from the partner (since content began) */
	int ended;              /* end of file was read, or written */
	int busy;               /* system calls that write here and have not returned */
	const char *spoiled;    /* why it can never leave */
	int promised;           /* the agent may count on it: nothing but relayed bytes may be written */
	int done;               /* it has left, or never will: the policy does not look again */
	const char *declined;   /* the last reason why not */
};

/* All under one lock.  `fd` without an end: nothing happens. */
extern struct end *ends[MAX_FD];
extern int ends_highest;        /* no higher descriptor has one */
void relay_lock(void);
void relay_unlock(void);
void relay_reset(void);         /* in a forked child: it knows nothing of its sockets */

void end_open(int fd, enum kind kind, int port);
void end_close(int fd);
void end_spoil(int fd, const char *why);

void saw_read(struct end *e, const char *data, size_t n);
void saw_write(struct end *e, const char *data, size_t n);
void saw_read_into_pipe(struct end *e, size_t n);
void saw_write_from_pipe(struct end *e, struct end *source, size_t n);
void saw_write_of_file(struct end *e, size_t n);

/* After the promise: the process writes what we have sent ahead of it.  Returns how many bytes of `n`. */
size_t relay_swallow(struct end *e, const char *data, size_t n);

/* After the promise: sends what the process keeps back, if nothing has moved since the last call; no more may ever come, as
 * new data goes another way. */
void relay_push(struct end *e, long (*send)(int fd, const void *data, size_t n));

/* Whether these bytes, at `offset` beyond what has left already, are the next that came from the partner. */
int relays(const struct end *e, size_t offset, const char *data, size_t n);

struct pair {
	struct end *inner, *outer;
	int delta_ab, delta_ba;
};

/* Why the proxy cannot leave this session now; 0 if it can.  Fills in the deltas. */
const char *relay_reason(struct end *inner, struct pair *pair);

/* The same, and the kernel has counted the same bytes. */
const char *relay_proof(struct end *inner, struct pair *pair);

extern int relay_plain_only;    /* the operator says: no HTTP is understood here, all is content */
#endif
