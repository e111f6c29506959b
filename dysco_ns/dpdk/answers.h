/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon may ask: docs/dpdk.md has the protocol.  Runs while nobody else touches the tables. */
#ifndef DYSCO_DPDK_ANSWERS_H
#define DYSCO_DPDK_ANSWERS_H
#include "state.h"

enum { REQUEST_BYTES = 1 << 13, ANSWER_BYTES = 1 << 16 };

/* One datagram each way: a line of text, then the bytes of keys and values. */
struct request {
	char text[REQUEST_BYTES];
	u32 bytes;
	char answer[ANSWER_BYTES];
	u32 answered;           /* bytes of it */
};

/* Answers.  Non-zero: call it again for the rest; let packets go on meanwhile. */
int answer(struct shared *s, struct request *q);

/* Statistics as JSON, with its end: of all cores together, then of each; returns bytes. */
u32 answer_statistics(const struct shared *s, char *to, u32 room);

#endif
