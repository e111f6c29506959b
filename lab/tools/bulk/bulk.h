/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of bulk share: a session, and what holds for all of them. */
#ifndef BULK_H
#define BULK_H
#include "stream.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>

enum { UP = 1, DOWN = 2 };      /* client to server, server to client */
enum { HEADER = 32, MAGIC = 0x62756c6b };

struct header {
	uint32_t magic, session, ways, message;
	uint64_t seed;
	uint32_t every_us, spare;
};
_Static_assert(sizeof(struct header) == HEADER, "header");

struct session {
	int fd, connected, sends, sent_all, read_all, watching;
	uint32_t id;
	struct header header;
	size_t header_bytes;    /* of it sent, or received */
	struct stream out, in;
	uint64_t next_ns;       /* lightly loaded: when the next message is due */
	size_t due;             /* ... bytes of it still to send */
	char *chunk;            /* made once, sent in as many pieces as the socket takes */
	size_t chunk_from, chunk_to;
	uint64_t opened_ns, connect_us, ended_ns;
	const char *error;
};

struct bulk {
	int server, ways, interval_ms, sndbuf, rcvbuf, drain_s, from_port;
	uint32_t count, base, message, every_us;
	uint64_t seed, deadline_ns, stop_ns;
	double seconds, after_seconds;
	struct sockaddr_in address;
	const char *report_path, *congestion;
	FILE *report;
	int epoll, listener, live, announced;
	struct session **sessions;
	size_t used, room, finished, failed;
	uint64_t interval_bytes, next_report_ns, total_sent, total_rcvd;
	uint32_t connected;
};
extern struct bulk bulk;
extern volatile sig_atomic_t stopping, shutting, resetting;

_Noreturn void fatal(const char *what);
uint64_t now_ns(void);

/* session.c: sessions, and what goes through them. */
void watch(struct session *s, int wants);
void tune(int fd);
struct session *session_new(int fd);
void session_streams(struct session *s);
void session_end(struct session *s, const char *error);
int light(const struct session *s);     /* says something now and then, instead of as much as it can */
int must_stop(const struct session *s);
int send_some(struct session *s);       /* non-zero: errno says why not */
int receive_some(struct session *s);

/* options.c */
void read_arguments(int argc, char **argv);

#endif
