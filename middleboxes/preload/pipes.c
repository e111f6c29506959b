/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes between sockets: what splice() moves cannot be changed on its way. */
#define _GNU_SOURCE
#include "libc.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Both ends of a pipe that splice() fills from a socket. */
struct conduit {
	int ends_open;
	int source;             /* descriptor and serial number of the socket from which all bytes in it come */
	uint64_t serial;
	size_t bytes;
};
static struct conduit *conduits[MAX_FD];

static struct conduit *conduit(int fd) { return fd >= 0 && fd < MAX_FD ? conduits[fd] : 0; }

int conduit_known(int fd) { return conduit(fd) != 0; }

void conduit_close(int fd)
{
	if (conduits[fd] && !--conduits[fd]->ends_open)
		free(conduits[fd]);
	conduits[fd] = 0;
}

static void pipe_opened(const int fds[2])
{
	struct conduit *c = fds[0] < MAX_FD && fds[1] < MAX_FD ? calloc(1, sizeof(*c)) : 0;

	if (!c)
		return;
	c->ends_open = 2;
	conduits[fds[0]] = conduits[fds[1]] = c;
}

PUBLIC int pipe(int fds[2])
{
	int result = LIBC(pipe)(fds);

	if (!result)
		pipe_opened(fds);
	return result;
}

PUBLIC int pipe2(int fds[2], int flags)
{
	int result = LIBC(pipe2)(fds, flags);

	if (!result)
		pipe_opened(fds);
	return result;
}

static struct end *source_of(const struct conduit *c)
{
	struct end *e = c && c->bytes ? ends[c->source] : 0;

	return e && e->serial == c->serial ? e : 0;
}

static void into_pipe(struct end *source, struct conduit *into, size_t n)
{
	if (!into || (into->bytes && source_of(into) != source)) {
		end_spoil(source->fd, "it goes through a pipe that carries other bytes, too");
		return;
	}
	into->source = source->fd;
	into->serial = source->serial;
	into->bytes += n;
	saw_read_into_pipe(source, n);
}

static void out_of_pipe(struct end *sink, struct conduit *from, size_t n)
{
	saw_write_from_pipe(sink, source_of(from), n);
	if (from)
		from->bytes -= from->bytes < n ? from->bytes : n;
	leave_consider(sink);
}

/* Into a socket whose session has left only its partner's bytes may go. */
static int before_splice(int from, int to)
{
	relay_lock();
	struct end *sink = ends[to];
	int broken = sink && sink->promised && source_of(conduit(from)) != sink->partner;
	if (broken)
		leave_guarded(sink);
	else if (sink)
		sink->busy++;
	relay_unlock();
	if (broken)
		errno = ECONNRESET;
	return broken;
}

static void after_splice(int from, int to, ssize_t n)
{
	relay_lock();
	struct end *source = followed(from) ? ends[from] : 0, *sink = followed(to) ? ends[to] : 0;
	if (source && !n)
		source->ended = 1;
	if (sink)
		sink->busy -= sink->busy > 0;
	if (source && n > 0)
		into_pipe(source, conduit(to), (size_t)n);
	if (sink && n > 0)
		out_of_pipe(sink, conduit(from), (size_t)n);
	relay_unlock();
}

/* What splice() moves cannot be changed on its way: only where it comes from and goes to matters. */
PUBLIC ssize_t splice(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags)
{
	int ours = followed(from) || followed(to);

	if (followed(to) && before_splice(from, to))
		return -1;
	ssize_t n = LIBC(splice)(from, from_at, to, to_at, length, flags);
	int number = errno;
	if (ours)
		after_splice(from, to, n);
	errno = number;
	return n;
}
