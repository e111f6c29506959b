/* SPDX-License-Identifier: Apache-2.0 */
/* What the stack of a host does: TCP at the two end hosts, forwarding by a strict firewall at all others.  It reads and
 * writes segments itself, and shares no code with the core.
 *
 * A byte is its number in its sender's stream, from 1 on; the SYN is 0, the last one the FIN.
 */
#ifndef STACK_H
#define STACK_H
#include <stdint.h>

#include "agent.h"
#include "names.h"

enum end_state { END_CLOSED, END_OPENING, END_ANSWERING, END_OPEN };
enum stream { STREAM_RIGHTWARD, STREAM_LEFTWARD };

/* TCP, as far as two paths can disturb it: acknowledgments may be late, what comes early is kept. */
struct end {
	uint32_t state, bytes, fin;     /* to send, before the FIN; whether there is one */
	uint32_t snd_nxt, snd_una, rcv_nxt, ack_sent;   /* byte numbers */
	uint32_t got;                   /* a bit for each byte that has come */
	uint32_t fin_at;                /* number of the other's FIN, 0: not seen */
	uint32_t ts_recent, ts_sent;
	uint32_t ack_due;
};

/* What a firewall knows of a stream: where it begins and has got to, and which byte has which number. */
struct watch {
	uint32_t known, first, high;
	uint32_t begun;         /* the first number has passed */
	uint32_t base;          /* number less byte, plus one; 0: no byte has come */
};

struct stack {
	struct end end;
	struct watch watch[2];
};

enum { STACK_PORT = 80, STACK_CLIENT_PORT = 40000 };

/* Where complaints go: the first one is kept until it is fetched. */
void wrong(const char *why);

int stack_can(const struct end *e, u32 what);
/* Makes the segment that the host at this side of the session sends: its client (0) or its server. */
void stack_sends(struct end *e, int server, const be32 address[2], u32 what, struct packet *p);
/* A segment has reached the stack of an end host.  Non-zero: it is answered at once by what is now in `p`. */
int stack_receives(struct end *e, int server, const be32 address[2], struct packet *p);
/* A middlebox forwards a segment of the session from this client. */
void stack_forwards(struct watch watch[2], be32 client, const struct packet *p);
/* All that its peer has sent, FIN too, has been received and acknowledged. */
int stack_closed(const struct end *e);
uint32_t stack_last(const struct end *e);
uint32_t stack_payload(const struct packet *p);
int stack_sum_holds(const struct packet *p);

#endif
