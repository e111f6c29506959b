/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of a proxy, on their way to libc: LD_PRELOAD=libdysco_preload.so (docs/libdysco.md).
 *
 * sockets.c, transfer.c and pipes.c define functions of libc anew.  Each does what it always does, and tells relay.c what has
 * moved.  Only writes to sockets of a session that has left are looked at beforehand, and only SO_LINGER is not carried out
 * there: the session goes on without the proxy.
 */
#ifndef PRELOAD_LIBC_H
#define PRELOAD_LIBC_H
#include "leave.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PUBLIC __attribute__((visibility("default")))

/* libc's own functions.  Other libraries call some of them before our constructor has run. */
#define LIBC(name) (libc_find()->name)

struct libc {
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*readv)(int, const struct iovec *, int);
	ssize_t (*recv)(int, void *, size_t, int);
	ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
	ssize_t (*recvmsg)(int, struct msghdr *, int);
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*writev)(int, const struct iovec *, int);
	ssize_t (*send)(int, const void *, size_t, int);
	ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	ssize_t (*sendfile)(int, int, off_t *, size_t);
	ssize_t (*splice)(int, off64_t *, int, off64_t *, size_t, unsigned);
	int (*accept)(int, struct sockaddr *, socklen_t *);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	int (*connect)(int, const struct sockaddr *, socklen_t);
	int (*shutdown)(int, int);
	int (*close)(int);
	int (*dup)(int);
	int (*dup2)(int, int);
	int (*dup3)(int, int, int);
	int (*setsockopt)(int, int, int, const void *, socklen_t);
	int (*pipe)(int[2]);
	int (*pipe2)(int[2], int);
};
const struct libc *libc_find(void);

/* Whether relay.c knows this descriptor; looked at again under the lock. */
static inline int followed(int fd) { return fd >= 0 && fd < MAX_FD && ends[fd]; }

/* The descriptor is closed (under the lock): if it was that of a pipe, one end fewer is open. */
void conduit_close(int fd);
int conduit_known(int fd);

#endif
