/* SPDX-License-Identifier: Apache-2.0 */
/* connect: times connect(), and a server that accepts and closes at once (paper Fig. 8).
 *
 *   connect server ADDRESS PORT            until SIGTERM
 *   connect client ADDRESS PORT COUNT      one line a connect: microseconds
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

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

static void serve(const struct sockaddr_in *address)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) || listen(fd, 4096))
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
		close(peer);
	}
}

static void measure(const struct sockaddr_in *address, int count)
{
	for (int i = 0; i < count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		double start = now_us();
		if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)))
			fatal("connecting");
		printf("%.2f\n", now_us() - start);
		close(fd);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (argc < 4 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fputs("usage: connect server ADDRESS PORT | connect client ADDRESS PORT COUNT\n", stderr);
		return 2;
	}
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	if (!strcmp(argv[1], "server"))
		serve(&address);
	else
		measure(&address, argc > 4 ? atoi(argv[4]) : 1000);
	return 0;
}
