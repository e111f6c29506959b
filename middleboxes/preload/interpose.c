/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of a proxy, on their way to libc: LD_PRELOAD=libdysco_preload.so (docs/libdysco.md).
 *
 * Each does what it always does, and tells relay.c what has moved.  Only writes to sockets of a session that has left are
 * looked at beforehand, and only SO_LINGER is not carried out there: the session goes on without the proxy.
 */
#define _GNU_SOURCE
#include "leave.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

/* libc's own function.  Other libraries call some of them before our constructor has run. */
#define REAL(type, name, ...) static type (*found_##name)(__VA_ARGS__)
#define LIBC(name) (find(), found_##name)

REAL(ssize_t, read, int, void *, size_t);
REAL(ssize_t, readv, int, const struct iovec *, int);
REAL(ssize_t, recv, int, void *, size_t, int);
REAL(ssize_t, recvfrom, int, void *, size_t, int, struct sockaddr *, socklen_t *);
REAL(ssize_t, recvmsg, int, struct msghdr *, int);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, send, int, const void *, size_t, int);
REAL(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
REAL(ssize_t, sendfile, int, int, off_t *, size_t);
REAL(ssize_t, splice, int, off64_t *, int, off64_t *, size_t, unsigned);
REAL(int, accept, int, struct sockaddr *, socklen_t *);
REAL(int, accept4, int, struct sockaddr *, socklen_t *, int);
REAL(int, connect, int, const struct sockaddr *, socklen_t);
REAL(int, shutdown, int, int);
REAL(int, close, int);
REAL(int, dup, int);
REAL(int, dup2, int, int);
REAL(int, dup3, int, int, int);
REAL(int, setsockopt, int, int, int, const void *, socklen_t);
REAL(int, pipe, int[2]);
REAL(int, pipe2, int[2], int);

/* Both ends of a pipe that splice() fills from a socket. */
struct conduit {
	int ends_open;
	int source;             /* descriptor and serial number of the socket from which all bytes in it come */
	uint64_t serial;
	size_t bytes;
};
static struct conduit *conduits[MAX_FD];

static void forked(void)
{
	relay_reset();
	leave_reset();
}

static void find(void)
{
	if (found_pipe2)
		return;
#define FIND(name) *(void **)&found_##name = dlsym(RTLD_NEXT, #name)
	FIND(read), FIND(readv), FIND(recv), FIND(recvfrom), FIND(recvmsg);
	FIND(write), FIND(writev), FIND(send), FIND(sendto), FIND(sendmsg), FIND(sendfile), FIND(splice);
	FIND(accept), FIND(accept4), FIND(connect), FIND(shutdown), FIND(close), FIND(dup), FIND(dup2), FIND(dup3);
	FIND(setsockopt), FIND(pipe), FIND(pipe2);
}

__attribute__((constructor)) static void interpose(void)
{
	find();
	leave_configure();
	pthread_atfork(0, 0, forked);
}

static int followed(int fd) { return fd >= 0 && fd < MAX_FD && ends[fd]; }

/* ---- sockets come and go ---- */

static int tcp4(int fd, struct sockaddr_in *local)
{
	socklen_t length = sizeof(*local), size = sizeof(int);
	int type = 0;

	return !getsockname(fd, (struct sockaddr *)local, &length) && local->sin_family == AF_INET &&
	       !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) && type == SOCK_STREAM;
}

static void follow(int fd, enum kind kind)
{
	struct sockaddr_in local;
	int unsent = leave_unsent(), number = errno;

	if (fd >= 0 && fd < MAX_FD && tcp4(fd, &local)) {
		leave_begin();
		if (unsent) /* what the kernel holds when the proxy leaves must drain before the old path ends */
			LIBC(setsockopt)(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
		relay_lock();
		if (ends[fd])
			end_close(fd);
		end_open(fd, kind, ntohs(local.sin_port));
		relay_unlock();
	}
	errno = number;
}

static void forget(int fd)
{
	if (fd < 0 || fd >= MAX_FD || (!ends[fd] && !conduits[fd]))
		return;
	relay_lock();
	if (conduits[fd] && !--conduits[fd]->ends_open)
		free(conduits[fd]);
	conduits[fd] = 0;
	if (ends[fd]) {
		leave_account(ends[fd]);
		end_close(fd);
	}
	relay_unlock();
}

PUBLIC int accept(int fd, struct sockaddr *address, socklen_t *length)
{
	int got = LIBC(accept)(fd, address, length);

	follow(got, ACCEPTED);
	return got;
}

PUBLIC int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	int got = LIBC(accept4)(fd, address, length, flags);

	follow(got, ACCEPTED);
	return got;
}

PUBLIC int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	int result = LIBC(connect)(fd, address, length), begun = !result || errno == EINPROGRESS;

	if (begun && address->sa_family == AF_INET && fd >= 0 && fd < MAX_FD && !ends[fd])
		follow(fd, CONNECTED);
	return result;
}

PUBLIC int close(int fd)
{
	forget(fd);
	return LIBC(close)(fd);
}

PUBLIC int shutdown(int fd, int how)
{
	if (followed(fd)) {
		relay_lock();
		if (ends[fd])
			ends[fd]->ended = 1;
		relay_unlock();
	}
	return LIBC(shutdown)(fd, how);
}

static void spoil(int fd, const char *why)
{
	if (!followed(fd))
		return;
	relay_lock();
	if (ends[fd])
		end_spoil(fd, why);
	relay_unlock();
}

PUBLIC int dup(int fd)
{
	spoil(fd, "its socket has another descriptor");
	return LIBC(dup)(fd);
}

PUBLIC int dup2(int fd, int to)
{
	spoil(fd, "its socket has another descriptor");
	if (fd != to)
		forget(to);
	return LIBC(dup2)(fd, to);
}

PUBLIC int dup3(int fd, int to, int flags)
{
	spoil(fd, "its socket has another descriptor");
	forget(to);
	return LIBC(dup3)(fd, to, flags);
}

PUBLIC int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	const struct linger *linger = value;

	if (level == SOL_SOCKET && name == SO_LINGER && followed(fd) && linger->l_onoff && !linger->l_linger) {
		relay_lock();
		int promised = ends[fd] && ends[fd]->promised;
		relay_unlock();
		if (promised)
			return 0; /* it would close by a reset what goes on without it */
	}
	return LIBC(setsockopt)(fd, level, name, value, length);
}

/* ---- reading ---- */

static void after_read(int fd, const struct iovec *parts, int count, ssize_t n, int flags)
{
	int number = errno;

	if (n < 0 || flags & MSG_PEEK)
		return;
	size_t wanted = 0, left = (size_t)n;
	for (int i = 0; i < count; i++)
		wanted += parts[i].iov_len;
	relay_lock();
	struct end *e = ends[fd];
	if (e && flags & (MSG_TRUNC | MSG_OOB))
		end_spoil(fd, "it reads in a way that is not followed");
	if (e && !n && wanted)
		e->ended = 1;
	for (int i = 0; e && left; i++) {
		size_t taken = left < parts[i].iov_len ? left : parts[i].iov_len;
		if (taken)
			saw_read(e, parts[i].iov_base, taken);
		left -= taken;
	}
	if (e)
		leave_consider(e);
	relay_unlock();
	errno = number;
}

PUBLIC ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
	ssize_t n = LIBC(recv)(fd, buffer, length, flags);
	struct iovec part = { buffer, length };

	if (followed(fd))
		after_read(fd, &part, 1, n, flags);
	return n;
}

PUBLIC ssize_t read(int fd, void *buffer, size_t length)
{
	ssize_t n = LIBC(read)(fd, buffer, length);
	struct iovec part = { buffer, length };

	if (followed(fd))
		after_read(fd, &part, 1, n, 0);
	return n;
}

PUBLIC ssize_t recvfrom(int fd, void *buffer, size_t length, int flags, struct sockaddr *from, socklen_t *size)
{
	ssize_t n = LIBC(recvfrom)(fd, buffer, length, flags, from, size);
	struct iovec part = { buffer, length };

	if (followed(fd))
		after_read(fd, &part, 1, n, flags);
	return n;
}

PUBLIC ssize_t readv(int fd, const struct iovec *parts, int count)
{
	ssize_t n = LIBC(readv)(fd, parts, count);

	if (followed(fd))
		after_read(fd, parts, count, n, 0);
	return n;
}

PUBLIC ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t n = LIBC(recvmsg)(fd, message, flags);

	if (followed(fd))
		after_read(fd, message->msg_iov, (int)message->msg_iovlen, n, flags);
	return n;
}

/* What programs call that were compiled with _FORTIFY_SOURCE; the length was checked against the buffer there. */
PUBLIC ssize_t __read_chk(int fd, void *buffer, size_t length, size_t room)
{
	return length > room ? (errno = EFAULT, -1) : read(fd, buffer, length);
}

PUBLIC ssize_t __recv_chk(int fd, void *buffer, size_t length, size_t room, int flags)
{
	return length > room ? (errno = EFAULT, -1) : recv(fd, buffer, length, flags);
}

PUBLIC ssize_t __recvfrom_chk(int fd, void *buffer, size_t length, size_t room, int flags, struct sockaddr *from, socklen_t *size)
{
	return length > room ? (errno = EFAULT, -1) : recvfrom(fd, buffer, length, flags, from, size);
}

/* ---- writing ---- */

long leave_send(int fd, const void *data, size_t n)
{
	return LIBC(send)(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Before a process writes: 0, go on; < 0, a promise would be broken; > 0, so many bytes have been sent ahead of it. */
static ssize_t before_write(int fd, const struct iovec *parts, int count)
{
	size_t offset = 0, swallowed = 0;
	int broken = 0;

	relay_lock();
	struct end *e = ends[fd];
	for (int i = 0; e && e->promised && i < count; offset += parts[i++].iov_len)
		broken |= parts[i].iov_len && !relays(e, offset, parts[i].iov_base, parts[i].iov_len);
	for (int i = 0; e && e->promised && !broken && i < count; i++) {
		size_t taken = relay_swallow(e, parts[i].iov_base, parts[i].iov_len);
		swallowed += taken;
		if (taken < parts[i].iov_len)
			break;
	}
	if (broken)
		leave_guarded(e);
	else if (e && !swallowed)
		e->busy++;
	relay_unlock();
	if (broken)
		errno = ECONNRESET;
	return broken ? -1 : (ssize_t)swallowed;
}

static ssize_t after_write(int fd, const struct iovec *parts, int count, ssize_t n, int flags)
{
	int number = errno;
	size_t left = n > 0 ? (size_t)n : 0;

	relay_lock();
	struct end *e = ends[fd];
	if (e)
		e->busy -= e->busy > 0;
	if (e && n > 0 && flags & (MSG_OOB | MSG_ZEROCOPY))
		end_spoil(fd, "it writes in a way that is not followed");
	for (int i = 0; e && left && i < count; i++) {
		size_t taken = left < parts[i].iov_len ? left : parts[i].iov_len;
		if (taken)
			saw_write(e, parts[i].iov_base, taken);
		left -= taken;
	}
	if (e)
		leave_consider(e);
	relay_unlock();
	errno = number;
	return n;
}

PUBLIC ssize_t send(int fd, const void *data, size_t length, int flags)
{
	struct iovec part = { (void *)data, length };

	if (!followed(fd))
		return LIBC(send)(fd, data, length, flags);
	ssize_t done = before_write(fd, &part, 1);
	return done ? done : after_write(fd, &part, 1, LIBC(send)(fd, data, length, flags), flags);
}

PUBLIC ssize_t write(int fd, const void *data, size_t length)
{
	struct iovec part = { (void *)data, length };

	if (!followed(fd))
		return LIBC(write)(fd, data, length);
	ssize_t done = before_write(fd, &part, 1);
	return done ? done : after_write(fd, &part, 1, LIBC(write)(fd, data, length), 0);
}

PUBLIC ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size)
{
	struct iovec part = { (void *)data, length };

	if (!followed(fd))
		return LIBC(sendto)(fd, data, length, flags, to, size);
	ssize_t done = before_write(fd, &part, 1);
	return done ? done : after_write(fd, &part, 1, LIBC(sendto)(fd, data, length, flags, to, size), flags);
}

PUBLIC ssize_t writev(int fd, const struct iovec *parts, int count)
{
	if (!followed(fd))
		return LIBC(writev)(fd, parts, count);
	ssize_t done = before_write(fd, parts, count);
	return done ? done : after_write(fd, parts, count, LIBC(writev)(fd, parts, count), 0);
}

PUBLIC ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	const struct iovec *parts = message->msg_iov;
	int count = (int)message->msg_iovlen;

	if (!followed(fd))
		return LIBC(sendmsg)(fd, message, flags);
	ssize_t done = before_write(fd, parts, count);
	return done ? done : after_write(fd, parts, count, LIBC(sendmsg)(fd, message, flags), flags);
}

/* A proxy that keeps what it relays in a file, after the promise: what it sends is looked at, too. */
static ssize_t send_read(int to, int from, off_t *offset, size_t length)
{
	char data[16384];
	off_t at = offset ? *offset : lseek(from, 0, SEEK_CUR);
	ssize_t n = pread(from, data, length < sizeof(data) ? length : sizeof(data), at);

	n = n > 0 ? send(to, data, (size_t)n, MSG_NOSIGNAL) : n;
	if (n > 0 && offset)
		*offset += n;
	else if (n > 0)
		lseek(from, n, SEEK_CUR);
	return n;
}

PUBLIC ssize_t sendfile(int to, int from, off_t *offset, size_t length)
{
	if (!followed(to))
		return LIBC(sendfile)(to, from, offset, length);
	relay_lock();
	int promised = ends[to] && ends[to]->promised;
	if (ends[to] && !promised)
		ends[to]->busy++;
	relay_unlock();
	if (promised)
		return send_read(to, from, offset, length);
	ssize_t n = LIBC(sendfile)(to, from, offset, length);
	relay_lock();
	struct end *e = ends[to];
	if (e)
		e->busy -= e->busy > 0;
	if (e && n > 0)
		saw_write_of_file(e, (size_t)n);
	relay_unlock();
	return n;
}

PUBLIC ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) { return sendfile(to, from, (off_t *)offset, length); }

/* ---- pipes ---- */

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

static struct conduit *conduit(int fd) { return fd >= 0 && fd < MAX_FD ? conduits[fd] : 0; }

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
