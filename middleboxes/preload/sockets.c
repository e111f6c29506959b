/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets come and go: which of them are followed. */
#define _GNU_SOURCE
#include "libc.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

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
		if (unsent) /* what the kernel holds when the proxy leaves must drain before the old path ends */
			LIBC(setsockopt)(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
		relay_lock();
		leave_begin();
		if (ends[fd])
			end_close(fd);
		end_open(fd, kind, ntohs(local.sin_port));
		relay_unlock();
	}
	errno = number;
}

static void forget(int fd)
{
	if (!followed(fd) && !conduit_known(fd))
		return;
	relay_lock();
	conduit_close(fd);
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
