/* SPDX-License-Identifier: Apache-2.0 */
/* flood: as many bytes, or segments of one size, as the machine bears, in one to a thousand sessions (paper Fig. 9).
 *
 *   flood server ADDRESS PORT                        until SIGTERM; reads and forgets
 *   flood client ADDRESS PORT SESSIONS BYTES MS      one line of JSON about MS milliseconds, after a quarter of them unseen
 *
 * BYTES is the payload of every segment: each is sent as a record of its own (MSG_EOR), which TCP neither joins with the
 * next nor sends as part of a super-packet.  0: as TCP likes, super-packets included.
 * Counted is what the other end has acknowledged, by TCP's own counters.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1000, EVENTS = 64, TURN = 16, BUFFER = 128 * 1024 };

struct count {
	uint64_t bytes, segments;
};

static char buffer[BUFFER];

static void fatal(const char *what)
{
	fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void watch(int poll, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (fcntl(fd, F_SETFL, O_NONBLOCK) || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
		fatal("watching a socket");
}

static void serve(const struct sockaddr_in *address)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
	struct epoll_event events[EVENTS];

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) || listen(fd, MOST))
		fatal("listening");
	watch(poll, fd, EPOLLIN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(poll, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			int peer = events[i].data.fd;
			if (peer == fd) {
				peer = accept(fd, NULL, NULL);
				if (peer >= 0)
					watch(poll, peer, EPOLLIN);
				continue;
			}
			ssize_t got = recv(peer, buffer, sizeof(buffer), 0);
			if (!got || (got < 0 && errno != EAGAIN))
				close(peer);
		}
	}
}

static int connected(const struct sockaddr_in *address)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	/* the host's default may pace (BBR): the processor would idle and hide the cost */
	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    connect(fd, (const struct sockaddr *)address, sizeof(*address)))
		fatal("connecting");
	return fd;
}

static struct count counted(const int *fds, int sessions)
{
	struct count total = { 0 };

	for (int i = 0; i < sessions; i++) {
		struct tcp_info info;
		socklen_t size = sizeof(info);
		if (getsockopt(fds[i], IPPROTO_TCP, TCP_INFO, &info, &size))
			fatal("counting");
		total.bytes += info.tcpi_bytes_acked;
		total.segments += info.tcpi_data_segs_out - info.tcpi_unacked;
	}
	return total;
}

static void send_some(int fd, size_t bytes)
{
	int flags = MSG_NOSIGNAL | (bytes ? MSG_EOR : 0);

	for (int i = 0; i < TURN; i++) {
		ssize_t sent = send(fd, buffer, bytes ? bytes : sizeof(buffer), flags);
		if (sent < 0 && errno != EAGAIN)
			fatal("sending");
		if (sent < 0)
			return;
	}
}

static void send_until(int poll, size_t bytes, double end_ms)
{
	struct epoll_event events[EVENTS];

	while (now_ms() < end_ms) {
		int count = epoll_wait(poll, events, EVENTS, 10);
		for (int i = 0; i < count; i++)
			send_some(events[i].data.fd, bytes);
	}
}

static void flood(const struct sockaddr_in *address, int sessions, size_t bytes, double ms)
{
	static int fds[MOST];
	int poll = epoll_create1(0);

	for (int i = 0; i < sessions; i++)
		fds[i] = connected(address);
	for (int i = 0; i < sessions; i++)
		watch(poll, fds[i], EPOLLOUT);
	send_until(poll, bytes, now_ms() + ms / 4);
	struct count before = counted(fds, sessions);
	double start = now_ms();
	send_until(poll, bytes, start + ms);
	struct count after = counted(fds, sessions);
	double took = now_ms() - start;
	printf("{\"ms\": %.3f, \"bytes\": %llu, \"segments\": %llu}\n", took, (unsigned long long)(after.bytes - before.bytes),
	       (unsigned long long)(after.segments - before.segments));
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct rlimit files = { MOST + 16, MOST + 16 };
	int client = argc == 7 && !strcmp(argv[1], "client");

	if ((!client && (argc != 4 || strcmp(argv[1], "server"))) || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fputs("usage: flood server ADDRESS PORT | flood client ADDRESS PORT SESSIONS BYTES MS\n", stderr);
		return 2;
	}
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	if (setrlimit(RLIMIT_NOFILE, &files))
		fatal("the limit of open files");
	if (!client)
		serve(&address);
	int sessions = atoi(argv[4]), bytes = atoi(argv[5]), ms = atoi(argv[6]);
	if (sessions < 1 || sessions > MOST || bytes < 0 || bytes > BUFFER || ms < 1) {
		fprintf(stderr, "flood: SESSIONS is 1 to %d, BYTES 0 to %d, MS at least 1\n", MOST, BUFFER);
		return 2;
	}
	flood(&address, sessions, (size_t)bytes, ms);
	return 0;
}
