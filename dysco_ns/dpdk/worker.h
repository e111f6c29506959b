/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of one core as the rest of the application sees it. */
#ifndef DYSCO_DPDK_WORKER_H
#define DYSCO_DPDK_WORKER_H
#include "state.h"

/* An agent with room for so many sessions.  0: no memory. */
struct agent *agent_new(u32 sessions);

/* A burst of frames that the local stack sends, or that arrive from the wire.  What becomes of them waits in the queues
 * of the pairs afterwards, or has left already. */
void agent_egress(struct agent *a, struct pair *pair, struct rte_mbuf **frames, u32 n);
void agent_ingress(struct agent *a, struct pair *pair, struct rte_mbuf **frames, u32 n);
void agent_flush(struct agent *a);

/* Runs a command, which has the place of the IP header in a frame of n bytes.  Returns enum refusal, and more = 1 when it
 * has not looked at all sessions yet: run it again. */
u32 agent_command(struct agent *a, const void *frame, u32 n, int *more);

#endif
