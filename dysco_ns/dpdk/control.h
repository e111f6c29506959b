/* SPDX-License-Identifier: Apache-2.0 */
/* The socket by which the daemon drives a data path, on a thread of its own.  It touches the tables only while the core
 * that owns them has let go of them: while it sleeps, or between two bursts. */
#ifndef DYSCO_DPDK_CONTROL_H
#define DYSCO_DPDK_CONTROL_H
#include "answers.h"

struct control;

/* Listens at `path`.  0, with errno: it could not. */
struct control *control_open(struct agent *a, const char *path);

/* The core takes the tables, and lets go of them; the first call is a take. */
void control_take(struct control *c);
void control_let_go(struct control *c);

/* Between two bursts: lets go if the control thread waits.  Cheap when it does not. */
void control_look(struct control *c);

/* Non-zero once a client has asked this process to end. */
int control_stopped(const struct control *c);

void control_close(struct control *c);

#endif
