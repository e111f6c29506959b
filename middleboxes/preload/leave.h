/* SPDX-License-Identifier: Apache-2.0 */
/* When sessions leave: by a policy or on command, in a thread of its own, so that the proxy never waits for an agent. */
#ifndef PRELOAD_LEAVE_H
#define PRELOAD_LEAVE_H
#include "relay.h"

void leave_configure(void);     /* reads the environment; some programs clear theirs */
void leave_begin(void);         /* the thread of this process, if it does not run */
void leave_reset(void);         /* a forked child has none */

/* After bytes have moved (under the lock): wakes the thread if the policy wants this session to leave. */
void leave_consider(struct end *e);

/* The session of this socket ends (under the lock): counts why it has stayed. */
void leave_account(struct end *e);

/* A promise was about to be broken: the session is, instead. */
void leave_guarded(const struct end *e);

/* send() as libc has it, without waiting: what relay_push sends is not the process's own write. */
long leave_send(int fd, const void *data, size_t n);

int leave_unsent(void);         /* most bytes that the kernel shall hold unsent; 0: as it likes */
#endif
