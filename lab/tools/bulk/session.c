/* SPDX-License-Identifier: Apache-2.0 */
/* A session of bulk: opened, filled with its stream or read from, reported. */
#define _GNU_SOURCE
#include "bulk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 16384, READ = 131072, LOWAT = 65536 };

struct bulk bulk = { .ways = UP | DOWN, .interval_ms = 100, .drain_s = 20, .count = 1, .seconds = 1, .seed = 1, .listener = -1 };

void fatal(const char *what)
{
	fprintf(stderr, "bulk: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- sessions ---- */

void watch(struct session *s, int wants)
{
	struct epoll_event event = { .events = (uint32_t)wants, .data.ptr = s };

	if (s->watching == wants)
		return;
	epoll_ctl(bulk.epoll, s->watching < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, s->fd, &event);
	s->watching = wants;
}

void tune(int fd)
{
	int one = 1, lowat = LOWAT;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	if (bulk.sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bulk.sndbuf, sizeof(int));
	if (bulk.congestion && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, bulk.congestion, (socklen_t)strlen(bulk.congestion)))
		fatal(bulk.congestion);
	if (bulk.rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bulk.rcvbuf, sizeof(int));
}

struct session *session_new(int fd)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s)
		fatal("memory");
	if (bulk.used == bulk.room) {
		bulk.room = bulk.room ? 2 * bulk.room : 256;
		bulk.sessions = realloc(bulk.sessions, bulk.room * sizeof(s));
		if (!bulk.sessions)
			fatal("memory");
	}
	bulk.sessions[bulk.used++] = s;
	s->fd = fd;
	s->watching = -1;
	s->opened_ns = now_ns();
	bulk.live++;
	tune(fd);
	return s;
}

void session_streams(struct session *s)
{
	int out = bulk.server ? 1 : 0;

	s->chunk = malloc(WRITE);
	if (!s->chunk || stream_open(&s->out, s->header.seed, s->id, out) || stream_open(&s->in, s->header.seed, s->id, !out))
		fatal("memory");
	s->sends = (s->header.ways & (uint32_t)(bulk.server ? DOWN : UP)) != 0;
	/* messages of different sessions are spread over the period */
	s->next_ns = now_ns() + (uint64_t)s->header.every_us * 1000u * (s->id % 64) / 64;
}

static void session_report(struct session *s)
{
	struct sockaddr_in local = { 0 };
	socklen_t length = sizeof(local);
	char sent[33] = "", received[33] = "";

	getsockname(s->fd, (struct sockaddr *)&local, &length);
	if (s->out.hash) {
		stream_digest(&s->out, sent);
		stream_digest(&s->in, received);
	}
	fprintf(bulk.report,
		"{\"session\": %u, \"sent\": %llu, \"sent_hash\": \"%s\", \"rcvd\": %llu, \"rcvd_hash\": \"%s\", "
		"\"first_bad_offset\": %lld, \"error\": %s%s%s, \"local_port\": %d, \"connect_us\": %llu}\n",
		s->id, (unsigned long long)s->out.bytes, sent, (unsigned long long)s->in.bytes, received,
		(long long)(s->in.hash ? s->in.first_bad : -1), s->error ? "\"" : "", s->error ? s->error : "null",
		s->error ? "\"" : "", ntohs(local.sin_port), (unsigned long long)s->connect_us);
}

void session_end(struct session *s, const char *error)
{
	s->error = error;
	session_report(s);
	bulk.total_sent += s->out.bytes;
	bulk.total_rcvd += s->in.bytes;
	bulk.failed += error != NULL;
	bulk.finished++;
	bulk.live--;
	close(s->fd);
	if (s->out.hash) {
		stream_close(&s->out);
		stream_close(&s->in);
	}
	free(s->chunk);
	s->chunk = NULL;
	s->fd = -1;
}

/* ---- sending ---- */

int light(const struct session *s) { return s->header.message != 0; }

static int finish_sending(struct session *s)
{
	s->sent_all = 1;
	return shutdown(s->fd, SHUT_WR);
}

/* The server stops when the client has, or so long afterwards; the client when its time is over. */
int must_stop(const struct session *s)
{
	if (shutting)
		return 1;
	if (!bulk.server)
		return bulk.stop_ns <= now_ns();
	return s->read_all && now_ns() >= s->ended_ns + (uint64_t)(bulk.after_seconds * 1e9);
}

static int send_header(struct session *s)
{
	ssize_t n = send(s->fd, (char *)&s->header + s->header_bytes, HEADER - s->header_bytes, MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	s->header_bytes += (size_t)n;
	return 0;
}

/* How much may be sent now: a chunk, or what is left of the message that is due. */
static size_t allowed(struct session *s)
{
	if (!light(s))
		return WRITE;
	uint64_t now = now_ns();
	if (!s->due && now >= s->next_ns) {
		s->due = s->header.message;
		s->next_ns += (uint64_t)s->header.every_us * 1000u;
		if (s->next_ns < now)
			s->next_ns = now + (uint64_t)s->header.every_us * 1000u;
	}
	return s->due < WRITE ? s->due : WRITE;
}

int send_some(struct session *s)
{
	if (!bulk.server && s->header_bytes < HEADER)
		if (send_header(s))
			return -1;
	if (s->header_bytes < HEADER || s->sent_all)
		return 0;
	if (!s->sends || must_stop(s))
		return must_stop(s) ? finish_sending(s) : 0;
	size_t want = allowed(s);
	if (!want)
		return 0;
	if (s->chunk_from == s->chunk_to) {
		stream_fill(&s->out, s->out.bytes, s->chunk, WRITE);
		s->chunk_from = 0, s->chunk_to = WRITE;
	}
	want = want < s->chunk_to - s->chunk_from ? want : s->chunk_to - s->chunk_from;
	ssize_t n = send(s->fd, s->chunk + s->chunk_from, want, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	stream_sent(&s->out, s->chunk + s->chunk_from, (size_t)n);
	s->chunk_from += (size_t)n;
	s->due -= light(s) ? (size_t)n : 0;
	return 0;
}

/* ---- receiving ---- */

static ssize_t take_header(struct session *s, const char *data, ssize_t n)
{
	size_t want = HEADER - s->header_bytes, take = (size_t)n < want ? (size_t)n : want;

	memcpy((char *)&s->header + s->header_bytes, data, take);
	s->header_bytes += take;
	if (s->header_bytes < HEADER)
		return n;
	if (s->header.magic != MAGIC)
		return -1;
	s->id = s->header.session;
	session_streams(s);
	return (ssize_t)take;
}

int receive_some(struct session *s)
{
	static char buffer[READ];
	ssize_t n = recv(s->fd, buffer, sizeof(buffer), 0), skip = 0;

	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (n == 0) {
		s->read_all = 1;
		s->ended_ns = now_ns();
		return 0;
	}
	if (bulk.server && s->header_bytes < HEADER) {
		skip = take_header(s, buffer, n);
		if (skip < 0) {
			errno = EPROTO;
			return -1;
		}
	}
	stream_received(&s->in, buffer + skip, (size_t)(n - skip));
	bulk.interval_bytes += (uint64_t)(n - skip);
	return 0;
}
