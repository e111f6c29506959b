/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the world share, and core.pml does not see: the hosts as they are laid out, and the step under way. */
#ifndef HOSTS_H
#define HOSTS_H
#include "frozen.h"
#include "numbers.h"
#include "segment.h"
#include "stack.h"
#include "world.h"

enum { MOST_BYTES = sizeof(struct stack) + FROZEN_MOST };

struct attempt {
	int left, right, through;
};

enum doing { ARRIVES, ASKS, SENDS, AGES, EXPIRES };

struct question {
	u32 host, who, doing, what, t, away;
};

struct answer {
	u32 host;               /* what it is now */
	u32 outs, refusal, stale;
	short out[FLIGHT];
	u32 told[WORLD_ATTEMPTS + 1];
	const char *wrong;
};

struct world {
	int hosts, beside;
	struct attempt attempts[WORLD_ATTEMPTS + 1];
	struct agent *agent[WORLD_HOSTS];
	be32 address[WORLD_HOSTS], ends[2];
	int moving;             /* the host that has a second address, -1: none */
	be32 second;
	int away;               /* it has moved there, and the first one works no more */
	struct stack stack;     /* of the host that does something now */
	struct answer *now;     /* where its outcome goes */
	const char *complaint;
	u32 passed;             /* hosts that a segment with bytes has reached, as bits */
};

extern struct world world;
extern struct numbers hosts_seen, messages_seen;

static inline int is_end(int who) { return who == 0 || who == world.hosts - 1; }
static inline const struct stack *stack_of(const int *host, int who)
{
	return (const void *)bytes_of(&hosts_seen, (u32)host[who])->at;
}

/* world.c */
u32 step(int *host, short *flight, int who, enum doing doing, int what, int t);

/* passes.c: a packet arrives at a host, or its stack sends one; its daemon asks for something, or has what is over forgotten. */
int host_of(const struct packet *p);
void arrive(int who, struct packet *p);
void leave(int who, struct packet *p);
u32 ask(int who, const struct question *q);
void expire(int who, u32 idle);

/* told.c: what the step under way has told and counted goes into world.now. */
void hear(int who);
void counted(int who);
int overtakes(const struct question *q);

#endif
