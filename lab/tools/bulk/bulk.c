/* SPDX-License-Identifier: Apache-2.0 */
/* bulk: many TCP sessions full of known bytes, in one direction or both, hashed at both ends (docs/lab.md).
 *
 * The client opens the sessions and sends, in each, a header that says what the server is to do.  After the time set
 * the client shuts its direction down, the server then its own; both read to the end of file and report.
 * At SIGUSR1 an end shuts its direction of every session down at once, at SIGUSR2 it resets all of them.
 */
#define _GNU_SOURCE
#include "stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, WRITE = 16384, READ = 131072, HEADER = 32, MAGIC = 0x62756c6b, LOWAT = 65536, BACKLOG = 1024 };
enum { UP = 1, DOWN = 2 };      /* client to server, server to client */

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

static struct {
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
} bulk = { .ways = UP | DOWN, .interval_ms = 100, .drain_s = 20, .count = 1, .seconds = 1, .seed = 1, .listener = -1 };

static volatile sig_atomic_t stopping, shutting, resetting;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		shutting = 1;
	else if (number == SIGUSR2)
		resetting = 1;
	else
		stopping = 1;
}

static void fatal(const char *what)
{
	fprintf(stderr, "bulk: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- sessions ---- */

static void watch(struct session *s, int wants)
{
	struct epoll_event event = { .events = (uint32_t)wants, .data.ptr = s };

	if (s->watching == wants)
		return;
	epoll_ctl(bulk.epoll, s->watching < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, s->fd, &event);
	s->watching = wants;
}

static void tune(int fd)
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

static struct session *session_new(int fd)
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

static void session_streams(struct session *s)
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

static void session_end(struct session *s, const char *error)
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

static int light(const struct session *s) { return s->header.message != 0; }

static int finish_sending(struct session *s)
{
	s->sent_all = 1;
	return shutdown(s->fd, SHUT_WR);
}

/* The server stops when the client has, or so long afterwards; the client when its time is over. */
static int must_stop(const struct session *s)
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

static int send_some(struct session *s)
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

static int receive_some(struct session *s)
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

static const char usage[] =
	"usage: bulk server --listen ADDRESS:PORT --report FILE [--interval-ms 100]\n"
	"                   [--after-seconds S, how long it goes on when the client has ended]\n"
	"       bulk client --connect ADDRESS:PORT --report FILE [--sessions N] [--seconds S] [--way up|down|both]\n"
	"                   [--message BYTES --every-us US] [--id BASE] [--seed N] [--drain-seconds 20]\n"
	"                   [--from-port PORT, one more for each session]\n"
	"       both: [--sndbuf BYTES] [--rcvbuf BYTES] [--congestion NAME]\n"
	"Sends known bytes through many TCP sessions and checks them at the other end.\n";

static void wrong(const char *why)
{
	fprintf(stderr, "bulk: %s\n%s", why, usage);
	exit(2);
}

static void set_address(const char *text)
{
	char host[64];
	int port;

	if (sscanf(text, "%63[^:]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &bulk.address.sin_addr) != 1)
		wrong("an address is ADDRESS:PORT");
	bulk.address.sin_family = AF_INET;
	bulk.address.sin_port = htons((uint16_t)port);
}

static int ways_of(const char *text)
{
	if (!strcmp(text, "up"))
		return UP;
	if (!strcmp(text, "down"))
		return DOWN;
	if (strcmp(text, "both"))
		wrong("--way is up, down or both");
	return UP | DOWN;
}

static void read_arguments(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", 1, 0, 'a' },   { "connect", 1, 0, 'a' },  { "report", 1, 0, 'r' }, { "interval-ms", 1, 0, 'i' },
		{ "sessions", 1, 0, 'n' }, { "seconds", 1, 0, 't' },  { "way", 1, 0, 'w' },    { "message", 1, 0, 'm' },
		{ "every-us", 1, 0, 'e' }, { "id", 1, 0, 'b' },       { "seed", 1, 0, 's' },   { "drain-seconds", 1, 0, 'd' },
		{ "sndbuf", 1, 0, 'S' },   { "rcvbuf", 1, 0, 'R' },   { "congestion", 1, 0, 'c' }, { "help", 0, 0, 'h' },
		{ "from-port", 1, 0, 'p' }, { "after-seconds", 1, 0, 'A' }, { 0, 0, 0, 0 }
	};
	int option;

	if (argc < 2 || (strcmp(argv[1], "server") && strcmp(argv[1], "client")))
		wrong("say server or client");
	bulk.server = !strcmp(argv[1], "server");
	optind = 2;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'a': set_address(optarg); break;
		case 'r': bulk.report_path = optarg; break;
		case 'i': bulk.interval_ms = atoi(optarg); break;
		case 'n': bulk.count = (uint32_t)atoi(optarg); break;
		case 't': bulk.seconds = atof(optarg); break;
		case 'w': bulk.ways = ways_of(optarg); break;
		case 'm': bulk.message = (uint32_t)atoi(optarg); break;
		case 'e': bulk.every_us = (uint32_t)atoi(optarg); break;
		case 'b': bulk.base = (uint32_t)atoi(optarg); break;
		case 's': bulk.seed = strtoull(optarg, NULL, 0); break;
		case 'd': bulk.drain_s = atoi(optarg); break;
		case 'S': bulk.sndbuf = atoi(optarg); break;
		case 'c': bulk.congestion = optarg; break;
		case 'p': bulk.from_port = atoi(optarg); break;
		case 'A': bulk.after_seconds = atof(optarg); break;
		case 'R': bulk.rcvbuf = atoi(optarg); break;
		case 'h': fputs(usage, stdout); exit(0);
		default: wrong("unknown option");
		}
	}
	if (!bulk.report_path || !bulk.address.sin_port)
		wrong("an address and --report are needed");
	if (bulk.message && !bulk.every_us)
		wrong("--message needs --every-us");
}

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
