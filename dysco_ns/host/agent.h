/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The core as a library: agents in one process, for tests, simulation and fuzzing.
 *
 * An agent is a set of tables and a clock that the caller moves.  A packet goes through egress or ingress as it would at
 * tc; what else the core sends meanwhile is in the agent's outbox afterwards, and what it tells in its events.
 */
#ifndef DYSCO_HOST_AGENT_H
#define DYSCO_HOST_AGENT_H
#include "types.h"
#include "reasons.h"

enum { PACKET_BYTES = 1 << 14, OUTBOX = 64, AGENT_EVENTS = 256 };

struct packet {
	u32 length;             /* of the frame, from the Ethernet header on */
	u32 gso_size;           /* payload bytes per wire segment of a super-packet, 0: ordinary */
	u64 tag;                /* of a SYN inside this host: the session's nonce */
	u32 way;                /* enum way: where the core has sent it */
	u8 spare[2];            /* so that IP headers are aligned */
	u8 data[PACKET_BYTES];
};

enum way { WAY_ON, WAY_DROPPED, WAY_WIRE, WAY_LOCAL, WAY_PARKED };

struct agent;

struct agent *agent_new(be32 address, u64 seed);
void agent_free(struct agent *a);
struct config *agent_config(struct agent *a);
struct policy *agent_policy(struct agent *a, u32 slot);
void agent_set_time(struct agent *a, u64 now_ns);

/* One pass.  WAY_ON: the packet goes on as it is (from egress to the wire, from ingress to the local stack). */
enum way agent_egress(struct agent *a, struct packet *p);
/* WAY_PARKED: the packet waits with the caller, who sends it by this when it may go. */
enum way agent_egress_parked(struct agent *a, struct packet *p);
enum way agent_ingress(struct agent *a, struct packet *p);
/* Runs a command; what it sends is in the outbox.  Returns enum refusal. */
u32 agent_command(struct agent *a, const struct command *c);

/* What the last pass has sent beside its packet: copies that the caller frees.  0: no more. */
struct packet *agent_sent(struct agent *a);
int agent_event(struct agent *a, struct event *event);

/* The session of what the local side sends, 0: none. */
u64 agent_nonce(struct agent *a, const struct five_tuple *sent);
const struct session *agent_session(struct agent *a, u64 nonce);
/* Entries in all tables together: 0 when every session is forgotten. */
u32 agent_entries(struct agent *a);

#endif
