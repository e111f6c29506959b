/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing. */
#define _GNU_SOURCE
#include "libc.h"

#include <unistd.h>

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
