/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "leave.h"

#include "../../dysco_ns/splice/libdysco.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 512, REASONS = 16, TRY_MS = 5000, PAUSE_MS = 1, PUSH_MS = 20, UNSENT = 16384, BUSY_TRIES = 5 };

static struct {
	enum { LEAVE_ON_COMMAND, LEAVE_NEVER, LEAVE_NOW, LEAVE_AFTER } when;
	uint64_t after;
	int unsent;
	char control[80];       /* prefix of the control sockets' paths */
} policy;

/* Under the lock. */
static struct {
	unsigned long long left, refused, guarded, opened;
	struct {
		char why[LINE];
		unsigned long long sessions;
	} stayed[REASONS];
	int due;                /* some session wants to leave by policy */
} counted;

static int wake = -1, running;

static void say(const char *what, const char *why) { dprintf(2, "libdysco_preload: %s: %s\n", what, why); }

void leave_configure(void)
{
	const char *when = getenv("DYSCO_LEAVE"), *control = getenv("DYSCO_CONTROL"), *unsent = getenv("DYSCO_UNSENT");
	const char *relay = getenv("DYSCO_RELAY");
	unsigned long long bytes;

	if (when && !strcmp(when, "never"))
		policy.when = LEAVE_NEVER;
	else if (when && !strcmp(when, "now"))
		policy.when = LEAVE_NOW;
	else if (when && sscanf(when, "after:%llu", &bytes) == 1)
		policy.when = LEAVE_AFTER, policy.after = bytes;
	else if (when && strcmp(when, "command"))
		say(when, "DYSCO_LEAVE is never, now, after:BYTES or command: on command, then");
	if (relay && strcmp(relay, "tcp") && strcmp(relay, "auto"))
		say(relay, "DYSCO_RELAY is tcp or auto: auto, then");
	relay_plain_only = relay && !strcmp(relay, "tcp");
	policy.unsent = unsent ? atoi(unsent) : UNSENT;
	if (control && strlen(control) >= sizeof(policy.control))
		say(control, "DYSCO_CONTROL is too long: no control socket");
	else if (control)
		strcpy(policy.control, control);
}

int leave_unsent(void) { return policy.unsent; }

/* ---- bookkeeping, under the lock ---- */

static void stayed(const char *why)
{
	for (int i = 0; i < REASONS; i++) {
		if (!counted.stayed[i].sessions)
			snprintf(counted.stayed[i].why, LINE, "%s", why), say("a session keeps its proxy", why);
		else if (strcmp(counted.stayed[i].why, why) && i < REASONS - 1)
			continue;
		counted.stayed[i].sessions++;
		return;
	}
}

void leave_account(struct end *e)
{
	struct pair pair;

	if (e->kind != ACCEPTED || e->promised || policy.when == LEAVE_NEVER || policy.when == LEAVE_ON_COMMAND)
		return;
	const char *why = e->declined ? e->declined : relay_reason(e, &pair);
	stayed(why ? why : "it ended before");
}

void leave_guarded(const struct end *e)
{
	if (!counted.guarded++)
		say("a session was broken", "its proxy had left, and would have written bytes of its own");
	(void)e;
}

static int wanted(const struct end *inner)
{
	if (inner->kind != ACCEPTED || inner->done || !inner->partner)
		return 0;
	return policy.when == LEAVE_NOW || (policy.when == LEAVE_AFTER && inner->read + inner->written >= policy.after);
}

void leave_consider(struct end *e)
{
	struct end *inner = e->kind == ACCEPTED ? e : e->partner;
	struct pair pair;

	if (counted.due || !inner || !wanted(inner))
		return;
	inner->declined = relay_reason(inner, &pair);
	if (inner->declined)
		return;
	counted.due = 1;
	uint64_t one = 1;
	if (write(wake, &one, sizeof(one)) != sizeof(one))
		say("cannot wake the thread that leaves", strerror(errno));
}

/* ---- leaving ---- */

enum verdict { LEFT, LATER, REFUSED };

/* Once the proof holds the two sockets are promised to the agent, before it is asked. */
static enum verdict leave(int fd, unsigned flags, int last_try, char *why)
{
	struct pair pair;

	relay_lock();
	struct end *inner = ends[fd];
	if (!inner || inner->kind != ACCEPTED) {
		relay_unlock();
		snprintf(why, LINE, "it ended before");
		return REFUSED;
	}
	const char *reason = relay_proof(inner, &pair);
	if (reason) {
		snprintf(why, LINE, "%s", reason);
		inner->declined = reason;
		if (last_try)
			counted.refused++;
		relay_unlock();
		return last_try ? REFUSED : LATER;
	}
	inner->promised = pair.outer->promised = 1;
	int out = pair.outer->fd;
	relay_unlock();
	int failed = dysco_splice_flags(fd, out, pair.delta_ab, pair.delta_ba, flags);
	int bound = !failed || (errno != EPERM && errno != ENOENT); /* the agent counts on the promise, or may */
	if (failed)
		snprintf(why, LINE, "%s", dysco_error());
	relay_lock();
	if (ends[fd] == inner) { /* it may have been closed meanwhile */
		inner->done = !failed;
		inner->promised = bound;
		if (inner->partner)
			inner->partner->promised = bound;
	}
	counted.left += !failed;
	counted.refused += !!failed;
	if (failed)
		stayed(why);
	relay_unlock();
	return failed ? REFUSED : LEFT;
}

static void pause_ms(int ms)
{
	struct timespec t = { 0, ms * 1000000L };
	nanosleep(&t, 0);
}

static void leave_by_policy(void)
{
	char why[LINE];
	struct pair pair;

	for (int fd = 0; fd <= ends_highest; fd++) {
		relay_lock();
		int due = ends[fd] && wanted(ends[fd]) && !relay_reason(ends[fd], &pair);
		relay_unlock();
		enum verdict verdict = due ? leave(fd, 0, 0, why) : LEFT;
		for (int tries = 1; verdict == LATER && tries < BUSY_TRIES; tries++) {
			pause_ms(PAUSE_MS);
			verdict = leave(fd, 0, 0, why);
		}
		relay_lock();
		if (ends[fd] && verdict == REFUSED) /* once: it stays a proxy for this session */
			ends[fd]->done = 1;
		relay_unlock();
	}
}

/* A session that has left must drain, though its proxy may wait for more before it passes the last bytes on.  Returns
 * whether there are any that have left. */
static int push_all(void)
{
	int any = 0;

	relay_lock();
	for (int fd = 0; fd <= ends_highest; fd++)
		if (ends[fd] && ends[fd]->promised) {
			relay_push(ends[fd], leave_send);
			any = 1;
		}
	relay_unlock();
	return any;
}

/* ---- control socket ---- */

static int sessions_of(int port, int *fds)
{
	int count = 0;

	relay_lock();
	for (int fd = 0; fd <= ends_highest; fd++)
		if (ends[fd] && ends[fd]->kind == ACCEPTED && !ends[fd]->done && (!port || ends[fd]->port == port))
			fds[count++] = fd;
	relay_unlock();
	return count;
}

static int now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

/* Sessions of which something is just under way are tried again for a while. */
static void leave_port(int client, int port, unsigned flags)
{
	static int fds[MAX_FD];
	char why[LINE] = "";
	int count = sessions_of(port, fds), left = 0, refused = 0, until = now_ms() + TRY_MS;

	while (count) {
		int last_try = now_ms() > until, later = 0;
		for (int i = 0; i < count; i++)
			switch (leave(fds[i], flags, last_try, why)) {
			case LEFT: left++; break;
			case LATER: fds[later++] = fds[i]; break;
			case REFUSED: refused++; break;
			}
		count = later;
		if (count)
			pause_ms(PAUSE_MS);
	}
	dprintf(client, "{\"ok\": true, \"spliced\": %d, \"refused\": %d, \"reason\": \"%s\"}\n", left, refused, refused ? why : "");
}

static void answer_stats(int client)
{
	char text[REASONS * 128] = "";
	size_t at = 0;
	unsigned long long open = 0;

	relay_lock();
	for (int fd = 0; fd <= ends_highest; fd++)
		open += ends[fd] && ends[fd]->kind == ACCEPTED;
	for (int i = 0; i < REASONS && counted.stayed[i].sessions && at < sizeof(text) - 100; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s\"%.80s\": %llu", i ? ", " : "", counted.stayed[i].why,
				       counted.stayed[i].sessions);
	dprintf(client, "{\"ok\": true, \"open\": %llu, \"spliced\": %llu, \"refused\": %llu, \"guarded\": %llu, \"stayed\": {%s}}\n",
		open, counted.left, counted.refused, counted.guarded, text);
	relay_unlock();
}

static void serve(int client)
{
	char line[LINE];
	ssize_t n = recv(client, line, sizeof(line) - 1, 0);
	int port = 0;

	if (n <= 0)
		return;
	line[n] = 0;
	if (sscanf(line, "splice %d", &port) == 1)
		leave_port(client, port, 0);
	else if (sscanf(line, "join %d", &port) == 1)
		leave_port(client, port, DYSCO_JOIN_ONLY);
	else if (!strncmp(line, "stats", 5))
		answer_stats(client);
	else
		dprintf(client, "{\"ok\": false, \"error\": \"unknown command: splice PORT, join PORT or stats\"}\n");
}

static int control_listen(struct sockaddr_un *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*path = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(path->sun_path, sizeof(path->sun_path), "%s.%d.sock", policy.control, getpid());
	unlink(path->sun_path);
	if (fd >= 0 && !bind(fd, (struct sockaddr *)path, sizeof(*path)) && !listen(fd, 8))
		return fd;
	say(path->sun_path, strerror(errno));
	close(fd);
	return -1;
}

static void *leaver(void *unused)
{
	struct sockaddr_un path;
	struct pollfd watched[2] = { { wake, POLLIN, 0 }, { policy.control[0] ? control_listen(&path) : -1, POLLIN, 0 } };
	uint64_t ignored;

	for (int pushing = 0;; pushing = push_all()) {
		if (poll(watched, 2, pushing ? PUSH_MS : -1) < 0)
			continue;
		if (watched[0].revents && read(wake, &ignored, sizeof(ignored)) > 0) {
			relay_lock();
			counted.due = 0;
			relay_unlock();
			leave_by_policy();
		}
		int client = watched[1].revents ? accept4(watched[1].fd, 0, 0, SOCK_CLOEXEC) : -1;
		if (client >= 0) {
			serve(client);
			close(client);
		}
	}
	return unused;
}

void leave_begin(void)
{
	pthread_t thread;
	sigset_t all, before;

	if (running || policy.when == LEAVE_NEVER)
		return;
	running = 1;
	wake = eventfd(0, EFD_CLOEXEC);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the proxy's */
	if (wake < 0 || pthread_create(&thread, 0, leaver, 0))
		say("no thread that leaves", strerror(errno));
	else
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, 0);
}

void leave_reset(void)
{
	running = 0;
	wake = -1;
	memset(&counted, 0, sizeof(counted));
}
