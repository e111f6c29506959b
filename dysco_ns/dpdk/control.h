/* SPDX-License-Identifier: Apache-2.0 */
/* The socket by which the daemon drives a data path, on a thread of its own.  What concerns tables is answered by the
 * core that owns them, between two bursts. */
#ifndef DYSCO_DPDK_CONTROL_H
#define DYSCO_DPDK_CONTROL_H
#include "answers.h"

struct control;

/* Listens at `path`.  0, with errno: it could not. */
struct control *control_open(struct agent *a, const char *path);

/* The core looks whether there is a request for it; cheap when there is none. */
void control_look(struct control *c);

/* Non-zero once a client has asked this process to end. */
int control_stopped(const struct control *c);

void control_close(struct control *c);

#endif
