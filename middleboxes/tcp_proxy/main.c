/* SPDX-License-Identifier: Apache-2.0 */
/* A small event-driven TCP proxy that knows how to leave: it relays, and asks Dysco to take it out of its sessions
 * at once, after a number of bytes, or when it is told to (docs/middleboxes.md).
 */
#define _GNU_SOURCE
#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../dysco_ns/splice/libdysco.h"

enum { NOTSENT_BYTES = 16384, EVENTS = 256, ROUTES = 32, SPLICE_AT_ONCE = 8, LINE = 1024, BACKLOG = 1024 };
enum splice_when { SPLICE_NEVER, SPLICE_NOW, SPLICE_AFTER, SPLICE_COMMAND };

struct route {
	struct source source;
	int port;
	struct sockaddr_in to;
};

static struct {
	struct route routes[ROUTES];
	int route_count;
	enum splice_when when;
	uint64_t after;
	size_t capacity;
	int sndbuf, rcvbuf;
	const char *control, *congestion;
	struct source control_source;
	int epoll;
	struct session *sessions;
	uint64_t accepted, closed, spliced, failed, bytes[2];
	/* a splice command under way: a few sessions each round, so that relaying never waits */
	struct session *cursor;
	struct source *client;
	int splice_port, splice_flags, done, refused;
	char why[LINE];
} proxy = { .capacity = 16384, .rcvbuf = 65536, .epoll = -1 };

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
	(void)number;
	stopping = 1;
}

static void fatal(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	fputs("tcp_proxy: ", stderr);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	exit(2);
}

static void watch(struct source *s, uint32_t wants)
{
	struct epoll_event event = { .events = wants, .data.ptr = s };

	if (s->watched == wants)
		return;
	epoll_ctl(proxy.epoll, s->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &event);
	if (!wants)
		epoll_ctl(proxy.epoll, EPOLL_CTL_DEL, s->fd, NULL);
	s->watched = wants;
}

static void tune(int fd)
{
	int one = 1, lowat = NOTSENT_BYTES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	if (proxy.congestion &&
	    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, proxy.congestion, (socklen_t)strlen(proxy.congestion)))
		fatal("--congestion %s: %s", proxy.congestion, strerror(errno));
	if (proxy.sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &proxy.sndbuf, sizeof(int));
	if (proxy.rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &proxy.rcvbuf, sizeof(int));
}

/* ---- sessions ---- */

static void session_close(struct session *s, int broken)
{
	struct linger reset = { 1, 0 };

	for (int side = INNER; side <= OUTER; side++) {
		if (broken && !s->spliced)
			setsockopt(s->end[side].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(s->end[side].fd);
		proxy.bytes[side] += s->flow[side].bytes;
		free(s->flow[side].buffer);
		s->end[side].session = NULL;
	}
	if (proxy.cursor == s)
		proxy.cursor = s->next;
	if (s->previous)
		s->previous->next = s->next;
	else
		proxy.sessions = s->next;
	if (s->next)
		s->next->previous = s->previous;
	proxy.closed++;
	s->broken = 1; /* freed after this round: events for its other end may still be in hand */
}

static struct session *graveyard;

static void bury(struct session *s, int broken)
{
	session_close(s, broken);
	s->next = graveyard;
	graveyard = s;
}

static void graveyard_clear(void)
{
	while (graveyard) {
		struct session *s = graveyard;
		graveyard = s->next;
		free(s);
	}
}

static int session_splice(struct session *s, unsigned flags)
{
	if (s->spliced)
		return 0;
	if (dysco_splice_flags(s->end[INNER].fd, s->end[OUTER].fd, 0, 0, flags)) {
		proxy.failed++;
		return -1;
	}
	s->spliced = 1;
	proxy.spliced++;
	return 0;
}

static void session_step(struct session *s)
{
	int state = relay(s, proxy.capacity);

	if (state) {
		bury(s, state < 0);
		return;
	}
	if (!s->spliced && (proxy.when == SPLICE_NOW ||
			    (proxy.when == SPLICE_AFTER && s->flow[INNER].bytes + s->flow[OUTER].bytes >= proxy.after)))
		if (session_splice(s, 0))
			s->spliced = -1; /* refused once: it stays a proxy for this session */
	for (int side = INNER; side <= OUTER; side++)
		watch(&s->end[side], relay_wants(s, side, proxy.capacity));
}

static void session_event(struct source *source, uint32_t events)
{
	struct session *s = source->session;
	int error = 0;
	socklen_t length = sizeof(error);

	if (!s || s->broken)
		return;
	if (!s->connected) {
		getsockopt(s->end[OUTER].fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error || (events & (EPOLLERR | EPOLLHUP))) {
			bury(s, 1);
			return;
		}
		s->connected = 1;
	}
	session_step(s);
}

static void session_open(const struct route *route, int fd)
{
	struct session *s = calloc(1, sizeof(*s));
	int out = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (!s || out < 0) {
		close(fd);
		free(s);
		return;
	}
	tune(fd);
	tune(out);
	for (int side = INNER; side <= OUTER; side++) {
		s->end[side] = (struct source){ SOURCE_END, side == INNER ? fd : out, s, side, 0 };
		s->flow[side].buffer = malloc(proxy.capacity);
	}
	s->port = route->port;
	s->next = proxy.sessions;
	if (s->next)
		s->next->previous = s;
	proxy.sessions = s;
	proxy.accepted++;
	if (!s->flow[INNER].buffer || !s->flow[OUTER].buffer ||
	    (connect(out, (const struct sockaddr *)&route->to, sizeof(route->to)) && errno != EINPROGRESS)) {
		bury(s, 1);
		return;
	}
	watch(&s->end[OUTER], EPOLLOUT);
}

static void accept_all(struct source *source)
{
	struct route *route = (struct route *)source;

	for (;;) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		session_open(route, fd);
	}
}

/* ---- control socket: one command a line, one JSON line back ---- */

static void answer(struct source *client, const char *format, ...)
{
	char line[2 * LINE];
	va_list list;

	va_start(list, format);
	int n = vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	if (n > 0 && send(client->fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		fprintf(stderr, "tcp_proxy: a control client went away\n");
}

static void answer_stats(struct source *client)
{
	uint64_t in = proxy.bytes[INNER], out = proxy.bytes[OUTER];

	for (struct session *s = proxy.sessions; s; s = s->next) {
		in += s->flow[INNER].bytes;
		out += s->flow[OUTER].bytes;
	}
	answer(client,
	       "{\"ok\": true, \"open\": %llu, \"accepted\": %llu, \"spliced\": %llu, \"refused\": %llu, "
	       "\"bytes_inward\": %llu, \"bytes_outward\": %llu}\n",
	       (unsigned long long)(proxy.accepted - proxy.closed), (unsigned long long)proxy.accepted,
	       (unsigned long long)proxy.spliced, (unsigned long long)proxy.failed, (unsigned long long)in,
	       (unsigned long long)out);
}

static void splice_begin(struct source *client, int port, int flags)
{
	if (proxy.client) {
		answer(client, "{\"ok\": false, \"error\": \"another splice command is under way\"}\n");
		return;
	}
	proxy.client = client;
	proxy.cursor = proxy.sessions;
	proxy.splice_port = port;
	proxy.splice_flags = flags;
	proxy.done = proxy.refused = 0;
	proxy.why[0] = 0;
}

static void splice_some(void)
{
	for (int i = 0; i < SPLICE_AT_ONCE && proxy.cursor;) {
		struct session *s = proxy.cursor;
		proxy.cursor = s->next;
		if ((proxy.splice_port && s->port != proxy.splice_port) || !s->connected)
			continue;
		i++;
		if (!session_splice(s, (unsigned)proxy.splice_flags)) {
			proxy.done++;
		} else {
			proxy.refused++;
			snprintf(proxy.why, sizeof(proxy.why), "%s", dysco_error());
		}
	}
	if (proxy.cursor)
		return;
	answer(proxy.client, "{\"ok\": true, \"spliced\": %d, \"refused\": %d, \"reason\": \"%s\"}\n", proxy.done,
	       proxy.refused, proxy.why);
	proxy.client = NULL;
}

static void client_close(struct source *client)
{
	if (proxy.client == client)
		proxy.client = NULL, proxy.cursor = NULL;
	close(client->fd);
	free(client);
}

static void client_event(struct source *client)
{
	char line[LINE];
	ssize_t n = recv(client->fd, line, sizeof(line) - 1, 0);
	int port = 0;

	if (n <= 0) {
		client_close(client);
		return;
	}
	line[n] = 0;
	if (sscanf(line, "splice %d", &port) == 1)
		splice_begin(client, port, 0);
	else if (sscanf(line, "join %d", &port) == 1)
		splice_begin(client, port, DYSCO_JOIN_ONLY);
	else if (!strncmp(line, "stats", 5))
		answer_stats(client);
	else if (!strncmp(line, "quit", 4))
		stopping = 1;
	else
		answer(client, "{\"ok\": false, \"error\": \"unknown command: splice PORT, join PORT, stats or quit\"}\n");
}

static void client_open(void)
{
	struct source *client = calloc(1, sizeof(*client));
	int fd = accept4(proxy.control_source.fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 || !client) {
		free(client);
		return;
	}
	*client = (struct source){ SOURCE_CLIENT, fd, NULL, 0, 0 };
	watch(client, EPOLLIN);
}

/* ---- start ---- */

static void listen_on(struct route *route)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons((uint16_t)route->port) };
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	tune(fd);
	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) || listen(fd, BACKLOG))
		fatal("port %d: %s", route->port, strerror(errno));
	route->source = (struct source){ SOURCE_LISTENER, fd, NULL, 0, 0 };
	watch(&route->source, EPOLLIN);
}

static void listen_for_control(void)
{
	struct sockaddr_un path = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path.sun_path, sizeof(path.sun_path), "%s", proxy.control);
	unlink(proxy.control);
	if (fd < 0 || bind(fd, (struct sockaddr *)&path, sizeof(path)) || listen(fd, 8))
		fatal("control socket %s: %s", proxy.control, strerror(errno));
	proxy.control_source = (struct source){ SOURCE_CONTROL, fd, NULL, 0, 0 };
	watch(&proxy.control_source, EPOLLIN);
}

static void add_route(const char *text)
{
	struct route *route = &proxy.routes[proxy.route_count];
	char host[64];
	int port, to;

	if (proxy.route_count == ROUTES)
		fatal("more than %d listening ports", ROUTES);
	if (sscanf(text, "%d=%63[^:]:%d", &port, host, &to) != 3 || inet_pton(AF_INET, host, &route->to.sin_addr) != 1)
		fatal("--listen %s: use PORT=ADDRESS:PORT", text);
	route->port = port;
	route->to.sin_family = AF_INET;
	route->to.sin_port = htons((uint16_t)to);
	proxy.route_count++;
}

static void set_splice(const char *text)
{
	unsigned long long bytes;

	if (!strcmp(text, "never"))
		proxy.when = SPLICE_NEVER;
	else if (!strcmp(text, "now"))
		proxy.when = SPLICE_NOW;
	else if (!strcmp(text, "command"))
		proxy.when = SPLICE_COMMAND;
	else if (sscanf(text, "after:%llu", &bytes) == 1)
		proxy.when = SPLICE_AFTER, proxy.after = bytes;
	else
		fatal("--splice %s: use never, now, after:BYTES or command", text);
}

static const char usage[] =
	"usage: tcp_proxy --listen PORT=ADDRESS:PORT [--listen ...] [--splice never|now|after:BYTES|command]\n"
	"                 [--control PATH] [--buffer BYTES] [--sndbuf BYTES] [--rcvbuf BYTES]\n"
	"                 [--congestion NAME]\n"
	"Relays TCP sessions; with --splice it asks Dysco to take it out of them.\n"
	"Commands on the control socket: splice PORT | join PORT | stats | quit  (PORT 0: all)\n";

static void read_arguments(int argc, char **argv)
{
	static const struct option options[] = { { "listen", 1, 0, 'l' }, { "splice", 1, 0, 's' },
						 { "control", 1, 0, 'c' }, { "buffer", 1, 0, 'b' },
						 { "sndbuf", 1, 0, 'S' }, { "rcvbuf", 1, 0, 'R' },
						 { "congestion", 1, 0, 'C' },
						 { "help", 0, 0, 'h' },   { 0, 0, 0, 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'l': add_route(optarg); break;
		case 's': set_splice(optarg); break;
		case 'c': proxy.control = optarg; break;
		case 'b': proxy.capacity = strtoul(optarg, NULL, 0); break;
		case 'S': proxy.sndbuf = atoi(optarg); break;
		case 'C': proxy.congestion = optarg; break;
		case 'R': proxy.rcvbuf = atoi(optarg); break;
		case 'h': fputs(usage, stdout); exit(0);
		default: fputs(usage, stderr); exit(2);
		}
	}
	if (!proxy.route_count || proxy.capacity < 1024)
		fatal("nothing to do: give at least one --listen PORT=ADDRESS:PORT, and a buffer of 1024 bytes or more");
}

static void dispatch(struct source *source, uint32_t events)
{
	switch (source->kind) {
	case SOURCE_LISTENER: accept_all(source); break;
	case SOURCE_END: session_event(source, events); break;
	case SOURCE_CONTROL: client_open(); break;
	case SOURCE_CLIENT: client_event(source); break;
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	struct rlimit files = { 65536, 65536 };
	struct sigaction stop = { .sa_handler = on_signal };

	read_arguments(argc, argv);
	setrlimit(RLIMIT_NOFILE, &files);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	proxy.epoll = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < proxy.route_count; i++)
		listen_on(&proxy.routes[i]);
	if (proxy.control)
		listen_for_control();
	puts("ready");
	fflush(stdout);
	while (!stopping) {
		int n = epoll_wait(proxy.epoll, events, EVENTS, proxy.client ? 0 : -1);
		for (int i = 0; i < n; i++)
			dispatch(events[i].data.ptr, events[i].events);
		if (proxy.client)
			splice_some();
		graveyard_clear();
	}
	if (proxy.control)
		unlink(proxy.control);
	return 0;
}
