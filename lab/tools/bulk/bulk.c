/* SPDX-License-Identifier: Apache-2.0 */
/* bulk: many TCP sessions full of known bytes, in one direction or both, hashed at both ends.
 *
 * The client opens the sessions and sends, in each, a header that says what the server is to do.  After the time set
 * the client shuts its direction down, the server then its own; both read to the end of file and report.
 * At SIGUSR1 an end shuts its direction of every session down at once, at SIGUSR2 it resets all of them.
 */
#define _GNU_SOURCE
#include "bulk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { EVENTS = 256, BACKLOG = 1024 };

volatile sig_atomic_t stopping, shutting, resetting;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		shutting = 1;
	else if (number == SIGUSR2)
		resetting = 1;
	else
		stopping = 1;
}

/* ---- events ---- */

static void connected(struct session *s)
{
	s->connected = 1;
	s->connect_us = (now_ns() - s->opened_ns) / 1000;
	bulk.connected++;
	if (bulk.connected == bulk.count && !bulk.announced) {
		bulk.announced = 1;
		printf("connected %u\n", bulk.count);
		fflush(stdout);
	}
}

static void session_wants(struct session *s)
{
	int sending = s->sends && !s->sent_all && !(light(s) && !s->due);

	watch(s, (s->read_all ? 0 : EPOLLIN) | (sending || (!bulk.server && s->header_bytes < HEADER) ? EPOLLOUT : 0));
}

static void session_event(struct session *s, uint32_t events)
{
	int error = 0;
	socklen_t length = sizeof(error);

	if (s->fd < 0)
		return;
	if (!s->connected) {
		getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error) {
			session_end(s, strerror(error));
			return;
		}
		connected(s);
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !s->read_all && receive_some(s)) || send_some(s)) {
		session_end(s, strerror(errno));
		return;
	}
	if (s->read_all && s->sent_all)
		session_end(s, s->in.hash && s->in.first_bad >= 0 ? "content differs" : NULL);
	else
		session_wants(s);
}

static void accept_all(void)
{
	for (;;) {
		int fd = accept4(bulk.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		struct session *s = session_new(fd);
		s->connected = 1;
		watch(s, EPOLLIN);
	}
}

/* A port of our choice, though an earlier session may be in TIME_WAIT on it. */
static void take_port(int fd, int port)
{
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)))
		fatal("--from-port");
}

static void connect_next(void)
{
	uint32_t i = (uint32_t)bulk.used;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fatal("socket");
	struct session *s = session_new(fd);
	if (bulk.from_port)
		take_port(fd, bulk.from_port + (int)i);
	s->id = bulk.base + i;
	s->header = (struct header){ MAGIC, s->id, (uint32_t)bulk.ways, bulk.message, bulk.seed, bulk.every_us, 0 };
	session_streams(s);
	if (connect(fd, (struct sockaddr *)&bulk.address, sizeof(bulk.address)) && errno != EINPROGRESS)
		session_end(s, strerror(errno));
	else
		watch(s, EPOLLOUT);
}

static void reset_all(void)
{
	struct linger now = { 1, 0 };

	for (size_t i = 0; i < bulk.used; i++) {
		if (bulk.sessions[i]->fd < 0)
			continue;
		setsockopt(bulk.sessions[i]->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		session_end(bulk.sessions[i], "reset on request");
	}
	resetting = 0;
}

/* What the clock brings: reports, messages that are due, the end. */
static void tick(void)
{
	if (resetting)
		reset_all();
	uint64_t now = now_ns();

	if (now >= bulk.next_report_ns) {
		fprintf(bulk.report, "{\"t_ns\": %llu, \"bytes_rcvd\": %llu, \"sessions_open\": %d}\n",
			(unsigned long long)now, (unsigned long long)bulk.interval_bytes, bulk.live);
		bulk.interval_bytes = 0;
		bulk.next_report_ns = now + (uint64_t)bulk.interval_ms * 1000000u;
	}
	if (stopping && !bulk.server && now < bulk.stop_ns) {
		bulk.stop_ns = now;
		bulk.deadline_ns = now + (uint64_t)bulk.drain_s * 1000000000u;
	}
	int past = shutting || (bulk.server ? bulk.after_seconds > 0 : now >= bulk.stop_ns);
	for (size_t i = 0; i < bulk.used; i++) {
		struct session *s = bulk.sessions[i];
		if (s->fd < 0 || !s->connected)
			continue;
		if ((past && !s->sent_all && must_stop(s)) || (light(s) && !s->sent_all && s->sends && now >= s->next_ns))
			session_event(s, 0);
	}
	if (!bulk.server && now >= bulk.deadline_ns)
		for (size_t i = 0; i < bulk.used; i++)
			if (bulk.sessions[i]->fd >= 0)
				session_end(bulk.sessions[i], bulk.sessions[i]->connected ? "not drained in time" : "not connected");
}

static int pause_ms(void) { return bulk.message || bulk.server ? 2 : 10; }

static int over(void)
{
	if (bulk.server)
		return stopping && !bulk.live;
	return bulk.used == bulk.count && !bulk.live;
}

static void run(void)
{
	struct epoll_event events[EVENTS];
	uint64_t stop_wait = 0;

	while (!over()) {
		for (int i = 0; i < 16 && !bulk.server && bulk.used < bulk.count; i++)
			connect_next();
		int n = epoll_wait(bulk.epoll, events, EVENTS, pause_ms());
		for (int i = 0; i < n; i++) {
			if (!events[i].data.ptr)
				accept_all();
			else
				session_event(events[i].data.ptr, events[i].events);
		}
		tick();
		if (stopping && bulk.server) { /* clients that never end: two seconds, then they count as failed */
			stop_wait = stop_wait ? stop_wait : now_ns() + 2000000000u;
			for (size_t i = 0; i < bulk.used && now_ns() > stop_wait; i++)
				if (bulk.sessions[i]->fd >= 0)
					session_end(bulk.sessions[i], "server stopped first");
		}
	}
	fprintf(bulk.report, "{\"summary\": {\"sessions\": %zu, \"failed\": %zu, \"sent\": %llu, \"rcvd\": %llu}}\n",
		bulk.finished, bulk.failed, (unsigned long long)bulk.total_sent, (unsigned long long)bulk.total_rcvd);
}

/* ---- start ---- */

static void listen_here(void)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	int one = 1;

	bulk.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(bulk.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	tune(bulk.listener);
	if (bind(bulk.listener, (struct sockaddr *)&bulk.address, sizeof(bulk.address)) || listen(bulk.listener, BACKLOG))
		fatal("listening");
	epoll_ctl(bulk.epoll, EPOLL_CTL_ADD, bulk.listener, &event);
	puts("ready");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct rlimit files = { 65536, 65536 };
	struct sigaction stop = { .sa_handler = on_signal };

	read_arguments(argc, argv);
	setrlimit(RLIMIT_NOFILE, &files);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGUSR1, &stop, NULL);
	sigaction(SIGUSR2, &stop, NULL);
	bulk.report = fopen(bulk.report_path, "w");
	if (!bulk.report)
		fatal(bulk.report_path);
	setvbuf(bulk.report, NULL, _IOLBF, 1 << 16);
	bulk.epoll = epoll_create1(EPOLL_CLOEXEC);
	bulk.stop_ns = now_ns() + (uint64_t)(bulk.seconds * 1e9);
	bulk.deadline_ns = bulk.stop_ns + (uint64_t)bulk.drain_s * 1000000000u;
	bulk.next_report_ns = now_ns() + (uint64_t)bulk.interval_ms * 1000000u;
	if (bulk.server)
		listen_here();
	run();
	fclose(bulk.report);
	return bulk.failed ? 1 : 0;
}
