/* SPDX-License-Identifier: Apache-2.0 */
/* The socket by which the daemon drives a data path, on a thread of its own.  It touches the tables only while all
 * cores have let go of them: while they sleep, or between two bursts. */
#ifndef DYSCO_DPDK_CONTROL_H
#define DYSCO_DPDK_CONTROL_H
#include "answers.h"

struct control;

/* Listens at `path`.  0, with errno: it could not. */
struct control *control_open(struct shared *s, const char *path);

/* A core takes its tables, and lets go of them; the first call is a take. */
void control_take(struct agent *a);
void control_let_go(struct agent *a);

/* Between two bursts: lets go if the control thread waits.  Cheap when it does not. */
void control_look(struct agent *a);

/* Non-zero once a client has asked this process to end. */
int control_stopped(const struct control *c);

void control_close(struct control *c);

#endif
