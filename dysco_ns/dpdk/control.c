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
	struct agent *agent;
	struct sockaddr_un address;
	struct request request;
	pthread_mutex_t tables; /* who holds it may touch them; the core does, nearly always */
	int wanted;             /* the control thread waits for it */
	int stopped;
	int listener, client[MAX_CLIENTS], clients;
	int hears;              /* the client that gets events, -1: nobody */
	pthread_t thread;
};

void control_take(struct control *c) { pthread_mutex_lock(&c->tables); }
void control_let_go(struct control *c) { pthread_mutex_unlock(&c->tables); }

void control_look(struct control *c)
{
	struct timespec pause = { 0, WAIT_NS };

	if (likely(!__atomic_load_n(&c->wanted, __ATOMIC_ACQUIRE)))
		return;
	control_let_go(c);
	while (__atomic_load_n(&c->wanted, __ATOMIC_ACQUIRE))
		nanosleep(&pause, 0);
	control_take(c);
}

int control_stopped(const struct control *c) { return __atomic_load_n(&c->stopped, __ATOMIC_RELAXED); }

static void stop(struct control *c) { __atomic_store_n(&c->stopped, 1, __ATOMIC_RELAXED); }

/* Answers in parts, so that packets need not wait for all of it. */
static void answer_all(struct control *c)
{
	for (int more = 1; more;) {
		__atomic_store_n(&c->wanted, 1, __ATOMIC_RELEASE);
		control_take(c);
		__atomic_store_n(&c->wanted, 0, __ATOMIC_RELEASE);
		more = answer(c->agent, &c->request);
		control_let_go(c);
	}
}

/* Sends the events that have come since; drops them if nobody hears.  Who does not read finds them in the ring later, as
 * far as it reaches. */
static void tell_events(struct control *c)
{
	struct agent *a = c->agent;

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
		struct pollfd fd[MAX_CLIENTS + 2] = { { c->listener, POLLIN, 0 }, { c->agent->wake, POLLIN, 0 } };
		eventfd_t woken;
		int clients = c->clients;
		for (int i = 0; i < clients; i++)
			fd[i + 2] = (struct pollfd){ c->client[i], POLLIN, 0 };
		poll(fd, (nfds_t)clients + 2, LOOK_MS);
		if (fd[1].revents)
			eventfd_read(c->agent->wake, &woken);
		tell_events(c);
		for (int i = clients - 1; i >= 0; i--)
			if (fd[i + 2].revents)
				serve(c, i);
		if (fd[0].revents)
			greet(c);
	}
	return 0;
}

struct control *control_open(struct agent *a, const char *path)
{
	struct control *c = calloc(1, sizeof(*c));

	if (!c || strlen(path) >= sizeof(c->address.sun_path)) {
		errno = c ? ENAMETOOLONG : ENOMEM;
		return 0;
	}
	c->agent = a;
	c->hears = -1;
	c->address.sun_family = AF_UNIX;
	strcpy(c->address.sun_path, path);
	c->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	unlink(path);
	if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&c->address, sizeof(c->address)) || listen(c->listener, MAX_CLIENTS))
		return 0;
	pthread_mutex_init(&c->tables, 0);
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
