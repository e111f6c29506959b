/* SPDX-License-Identifier: Apache-2.0 */
#include "relay.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static size_t space(const struct flow *f, size_t capacity) { return capacity - f->to; }

/* Reads once into the free part of the buffer.  < 0: the connection broke. */
static int fill(struct flow *f, int fd, size_t capacity)
{
	if (f->from == f->to)
		f->from = f->to = 0;
	if (f->ended || !space(f, capacity))
		return 0;
	ssize_t n = recv(fd, f->buffer + f->to, space(f, capacity), 0);
	if (n > 0) {
		f->to += (size_t)n;
		f->bytes += (uint64_t)n;
	} else if (n == 0) {
		f->ended = 1;
	} else if (errno != EAGAIN && errno != EINTR) {
		return -1;
	}
	return 0;
}

/* Writes what there is; passes the end of file on once the buffer is empty. */
static int drain(struct flow *f, int fd)
{
	if (f->from < f->to) {
		ssize_t n = send(fd, f->buffer + f->from, f->to - f->from, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -1;
		f->from += n > 0 ? (size_t)n : 0;
	}
	if (f->ended && !f->passed && f->from == f->to) {
		f->passed = 1;
		shutdown(fd, SHUT_WR);
	}
	return 0;
}

int relay(struct session *s, size_t capacity)
{
	for (int from = INNER; from <= OUTER; from++) {
		struct flow *f = &s->flow[from];
		if (fill(f, s->end[from].fd, capacity) || drain(f, s->end[!from].fd))
			return -1;
	}
	return s->flow[INNER].passed && s->flow[OUTER].passed;
}

uint32_t relay_wants(const struct session *s, int side, size_t capacity)
{
	const struct flow *out_of = &s->flow[side], *into = &s->flow[!side];
	uint32_t wants = 0;

	if (!s->connected)
		return side == OUTER ? EPOLLOUT : 0;
	if (!out_of->ended && (space(out_of, capacity) || out_of->from == out_of->to))
		wants |= EPOLLIN;
	if (into->from < into->to)
		wants |= EPOLLOUT;
	return wants;
}
