/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "libc.h"

#include <dlfcn.h>
#include <pthread.h>

static struct libc libc;
static int found;

const struct libc *libc_find(void)
{
	if (found)
		return &libc;
#define FIND(name) *(void **)&libc.name = dlsym(RTLD_NEXT, #name)
	FIND(read), FIND(readv), FIND(recv), FIND(recvfrom), FIND(recvmsg), FIND(write), FIND(writev), FIND(send);
	FIND(sendto), FIND(sendmsg), FIND(sendfile), FIND(splice), FIND(accept), FIND(accept4), FIND(connect);
	FIND(shutdown), FIND(close), FIND(dup), FIND(dup2), FIND(dup3), FIND(setsockopt), FIND(pipe), FIND(pipe2);
	found = 1;
	return &libc;
}

static void forked(void)
{
	relay_reset();
	leave_reset();
}

__attribute__((constructor)) static void begin(void)
{
	libc_find();
	leave_configure();
	pthread_atfork(0, 0, forked);
}
