/* SPDX-License-Identifier: Apache-2.0 */
/* What core.pml asks of the hosts: the shipping core, as the host library has it, and stacks beside it.
 *
 * A host (its agent's tables, its stack) and a message under way are numbers in Spin's state; what they stand for is kept
 * here and never changes.  One step of a host follows from its number and from what happens to it alone.
 */
#ifndef WORLD_H
#define WORLD_H

#include "names.h"

enum { WORLD_HOSTS = 6, WORLD_ATTEMPTS = 2 };

/* A chain of so many hosts, and so many beside it; `bytes` and FINs that the client and the server will send. */
void world_new(int hosts, int beside, int bytes_left, int bytes_right, int fins);
/* Attempt 1 or 2: its anchors, and the host that its new path goes through, 0: none. */
void world_attempt(int t, int left, int right, int through);
/* The client (1) or the server (2) has a second address, to which the session moves. */
void world_moves(int who);
/* The session is opened by messages that nothing happens to; all numbers are filled in. */
void world_open(int *host);
/* All hosts before the session. */
void world_closed(int *host);

/* Each does one step of one host.  What goes wrong is in world_wrong(), what has been told in world_told(). */
void world_arrives(int *host, short *flight, int place);
void world_lost(short *flight, int place);
int world_asks(int *host, short *flight, int t, int what);      /* ASK_...; returns enum refusal */
void world_sends(int *host, short *flight, int who, int what);
void world_ages(int *host, int who);

const char *world_wrong(void);
int world_told(int t);          /* TOLD_... */
int world_where(void);          /* the host of the last step */
int world_stale(void);          /* something was dropped because nobody waits for it any more */

/* What follows from the hosts' numbers: attempts that have a lock, a record or a held request at each, as bits 1 and 2,
 * unless a lease has run out; and what the end hosts may send, as bits SENDS_..., CLOSED. */
void world_look(const int *host, unsigned char *holds, unsigned char *may);
/* From here on nothing happens to messages: a byte each way passes just these hosts (bits), FINs end the session, and
 * no table has an entry; nothing is sent from or to an address from which an end host has moved.  Returns what is wrong,
 * 0: nothing. */
const char *world_end(const int *host, int chain, int moved);

#endif
