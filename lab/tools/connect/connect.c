/* SPDX-License-Identifier: Apache-2.0 */
/* connect: times connect() and the end of a session, and a server to connect to (paper Fig. 8).
 *
 *   connect server ADDRESS PORT [FILE]     until SIGTERM; one line a session into FILE: microseconds of its last FIN
 *   connect client ADDRESS PORT COUNT [MS] one line a connect: microseconds; all stay open for some milliseconds
 *   connect churn ADDRESS PORT COUNT       short sessions, one after the other; says how many in which time
 *
 * The client closes nothing until all are open.  The server waits for its first session's end, so that the others only
 * enter its queue; the client closes that one last, and then waits for the one that the server closes last: nothing is
 * charged with waking a process on another processor, which costs 0 or 8 us as that processor happens to poll or to
 * sleep, and hid what was to be measured.
 *
 * A last FIN is timed from close to its acknowledgment.  The first is not: Linux delays its acknowledgment until the
 * application has read it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	MOST = 4000, /* the server's queue; the kernel's own limit is 4096 */
	CLOSE_TIMEOUT_US = 1000000,
};

static void fatal(const char *what)
{
	fprintf(stderr, "connect: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int tcp_state(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size))
		fatal("asking for a socket's state");
	return info.tcpi_state;
}

static double close_us(int fd)
{
	double start = now_us(), now = start;

	if (shutdown(fd, SHUT_WR))
		fatal("closing");
	while (tcp_state(fd) != TCP_CLOSE && now - start < CLOSE_TIMEOUT_US)
		now = now_us();
	return now_us() - start;
}

static void serve(const struct sockaddr_in *address, FILE *times)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) || listen(fd, MOST))
		fatal("listening");
	puts("ready");
	fflush(stdout);
	for (;;) {
		char end;
		int peer = accept(fd, NULL, NULL);
		if (peer < 0)
			continue;
		if (recv(peer, &end, 1, 0) < 0) /* the client closes first: it keeps the TIME_WAIT */
			fprintf(stderr, "connect: a client went away: %s\n", strerror(errno));
		else if (times)
			fprintf(times, "%.2f\n", close_us(peer));
		close(peer);
	}
}

static void measure(const struct sockaddr_in *address, int count, int hold_ms)
{
	static int fds[MOST];
	struct rlimit files = { MOST + 16, MOST + 16 };
	char end;

	if (setrlimit(RLIMIT_NOFILE, &files))
		fatal("the limit of open files");
	for (int i = 0; i < count; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		double start = now_us();
		if (fds[i] < 0 || connect(fds[i], (const struct sockaddr *)address, sizeof(*address)))
			fatal("connecting");
		printf("%.2f\n", now_us() - start);
	}
	fflush(stdout);
	usleep((useconds_t)hold_ms * 1000);
	for (int i = count; i-- > 0;)
		shutdown(fds[i], SHUT_WR);
	for (int i = count; i-- > 0;)
		if (recv(fds[i], &end, 1, 0)) /* until the server has closed too: the next run finds nothing under way */
			fatal("closing");
}

static void churn(const struct sockaddr_in *address, int count)
{
	double start = now_us();
	char end;

	for (int i = 0; i < count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)))
			fatal("connecting");
		if (shutdown(fd, SHUT_WR) || recv(fd, &end, 1, 0))
			fatal("closing");
		close(fd);
	}
	printf("%d sessions in %.3f s\n", count, (now_us() - start) / 1e6);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (argc < 4 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fputs("usage: connect server ADDRESS PORT [FILE] | connect client|churn ADDRESS PORT COUNT [MS]\n", stderr);
		return 2;
	}
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	if (!strcmp(argv[1], "server")) {
		FILE *times = argc > 4 ? fopen(argv[4], "w") : NULL;
		if (argc > 4 && !times)
			fatal(argv[4]);
		if (times)
			setvbuf(times, NULL, _IOLBF, 0);
		serve(&address, times);
	}
	int count = argc > 4 ? atoi(argv[4]) : 1000;
	int churns = !strcmp(argv[1], "churn");
	if (count < 1 || (count > MOST && !churns)) {
		fprintf(stderr, "connect: COUNT is 1 to %d\n", MOST);
		return 2;
	}
	if (churns)
		churn(&address, count);
	else
		measure(&address, count, argc > 5 ? atoi(argv[5]) : 0);
	return 0;
}
