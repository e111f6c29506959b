/* SPDX-License-Identifier: Apache-2.0 */
/* The agents of all cores as the rest of the application sees them. */
#ifndef DYSCO_DPDK_WORKER_H
#define DYSCO_DPDK_WORKER_H
#include "state.h"

/* So many cores' agents, with room for so many sessions together.  0: no memory. */
struct shared *agents_new(u32 cores, u32 sessions);

/* Frames that the local stack sends (arriving 0), or that arrive from the wire, at one core.  What becomes of them waits in
 * its queues afterwards, or has left already. */
void agent_frames(struct agent *a, struct pair *pair, struct rte_mbuf **frames, u32 n, u32 arriving);

/* Frames that other cores have handed to this one; returns how many. */
u32 agent_lanes(struct agent *a);
void agent_flush(struct agent *a);

/* One look at every queue of this core; returns frames, and those that it has handed on. */
u32 agent_turn(struct agent *a);

/* Runs a command, which has the place of the IP header in a frame of n bytes, at the core that it concerns; all have let
 * go.  Returns enum refusal, and more = 1 when it has not looked at all sessions yet: run it again. */
u32 agents_command(struct shared *s, const void *frame, u32 n, int *more);

/* The segments that wait for a session leave; those of sessions that have ended are dropped.  Returns how many have left. */
u32 agents_release(struct shared *s, u64 nonce);

#endif
