/* SPDX-License-Identifier: Apache-2.0 */
/* Sequenced packets on a unix socket: a request, an answer; `events` turns a connection into a stream of struct event. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "control.h"

enum { MAX_CLIENTS = 16, EVENTS_AT_ONCE = 256, LOOK_MS = 100, WAIT_NS = 5000 };

struct control {
	struct shared *shared;
	struct sockaddr_un address;
	struct request request;
	int stopped;
	int listener, client[MAX_CLIENTS], clients;
	int hears;              /* the client that gets events, -1: nobody */
	pthread_t thread;
};

void control_take(struct agent *a) { pthread_mutex_lock(&a->tables); }
void control_let_go(struct agent *a) { pthread_mutex_unlock(&a->tables); }

void control_look(struct agent *a)
{
	struct timespec pause = { 0, WAIT_NS };

	if (likely(!__atomic_load_n(&a->wanted, __ATOMIC_ACQUIRE)))
		return;
	control_let_go(a);
	while (__atomic_load_n(&a->wanted, __ATOMIC_ACQUIRE))
		nanosleep(&pause, 0);
	control_take(a);
}

/* The control thread takes the tables of all cores: no core ever waits for another, so each lets go in time. */
static void take_all(struct shared *s)
{
	for (u32 i = 0; i < s->spread.cores; i++)
		__atomic_store_n(&s->agent[i]->wanted, 1, __ATOMIC_RELEASE);
	for (u32 i = 0; i < s->spread.cores; i++) {
		control_take(s->agent[i]);
		__atomic_store_n(&s->agent[i]->wanted, 0, __ATOMIC_RELEASE);
	}
}

static void let_all_go(struct shared *s)
{
	for (u32 i = 0; i < s->spread.cores; i++)
		control_let_go(s->agent[i]);
}

int control_stopped(const struct control *c) { return __atomic_load_n(&c->stopped, __ATOMIC_RELAXED); }

static void stop(struct control *c) { __atomic_store_n(&c->stopped, 1, __ATOMIC_RELAXED); }

/* Answers in parts, so that packets need not wait for all of it. */
static void answer_all(struct control *c)
{
	for (int more = 1; more;) {
		take_all(c->shared);
		more = answer(c->shared, &c->request);
		let_all_go(c->shared);
	}
}

/* Sends the events that have come since; drops them if nobody hears.  Who does not read finds them in the ring later, as
 * far as it reaches. */
static void tell_events(struct control *c, struct agent *a)
{
	for (;;) {
		u32 told = __atomic_load_n(&a->told, __ATOMIC_ACQUIRE), first = a->heard % EVENT_ROOM;
		u32 n = RTE_MIN(RTE_MIN(told - a->heard, (u32)EVENTS_AT_ONCE), EVENT_ROOM - first);
		if (!n)
			return;
		if (c->hears >= 0 && send(c->hears, &a->event[first], n * sizeof(struct event), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
			if (errno == EAGAIN)
				return;
			c->hears = -1;
		}
		__atomic_store_n(&a->heard, a->heard + n, __ATOMIC_RELEASE);
	}
}

static void hang_up(struct control *c, int nth)
{
	if (c->hears == c->client[nth])
		c->hears = -1;
	close(c->client[nth]);
	c->client[nth] = c->client[--c->clients];
}

static int said(const struct request *q, const char *word) { return !strncmp(q->text, word, strlen(word)); }

static void serve(struct control *c, int nth)
{
	struct request *q = &c->request;
	ssize_t n = recv(c->client[nth], q->text, REQUEST_BYTES, 0);

	if (n <= 0) {
		hang_up(c, nth);
		return;
	}
	q->bytes = (u32)n;
	q->answered = (u32)sprintf(q->answer, "ok\n");
	if (said(q, "stop\n"))
		stop(c);
	else if (said(q, "events\n"))
		c->hears = c->client[nth];
	else
		answer_all(c);
	if (send(c->client[nth], q->answer, q->answered, MSG_NOSIGNAL) < 0)
		hang_up(c, nth);
}

static void greet(struct control *c)
{
	int client = accept(c->listener, 0, 0);

	if (client < 0)
		return;
	if (c->clients == MAX_CLIENTS)
		close(client);
	else
		c->client[c->clients++] = client;
}

static void *control_run(void *context)
{
	struct control *c = context;

	while (!control_stopped(c)) {
		struct pollfd fd[MAX_CLIENTS + 2] = { { c->listener, POLLIN, 0 }, { c->shared->wake, POLLIN, 0 } };
		eventfd_t woken;
		int clients = c->clients;
		for (int i = 0; i < clients; i++)
			fd[i + 2] = (struct pollfd){ c->client[i], POLLIN, 0 };
		poll(fd, (nfds_t)clients + 2, LOOK_MS);
		if (fd[1].revents)
			eventfd_read(c->shared->wake, &woken);
		for (u32 i = 0; i < c->shared->spread.cores; i++)
			tell_events(c, c->shared->agent[i]);
		for (int i = clients - 1; i >= 0; i--)
			if (fd[i + 2].revents)
				serve(c, i);
		if (fd[0].revents)
			greet(c);
	}
	return 0;
}

struct control *control_open(struct shared *s, const char *path)
{
	struct control *c = calloc(1, sizeof(*c));

	if (!c || strlen(path) >= sizeof(c->address.sun_path)) {
		errno = c ? ENAMETOOLONG : ENOMEM;
		return 0;
	}
	c->shared = s;
	c->hears = -1;
	c->address.sun_family = AF_UNIX;
	strcpy(c->address.sun_path, path);
	c->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	unlink(path);
	if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&c->address, sizeof(c->address)) || listen(c->listener, MAX_CLIENTS))
		return 0;
	sigset_t all, before; /* signals, those of the tap driver too, are the core's */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	errno = pthread_create(&c->thread, 0, control_run, c);
	pthread_sigmask(SIG_SETMASK, &before, 0);
	return errno ? 0 : c;
}

void control_close(struct control *c)
{
	stop(c);
	pthread_join(c->thread, 0);
	while (c->clients)
		hang_up(c, 0);
	close(c->listener);
	unlink(c->address.sun_path);
	free(c);
}
