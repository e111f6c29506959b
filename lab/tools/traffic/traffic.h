/* SPDX-License-Identifier: Apache-2.0 */
/* TCP sessions without a TCP stack: what both ends of each would send, through whatever lies between two ports.
 *
 *      near port ---> the agent's host side | agent | its wire side ---> far port
 *
 * A session belongs to one worker, which sends for both of its ends; frames are checked by whichever worker they arrive at.
 */
#ifndef DYSCO_TRAFFIC_H
#define DYSCO_TRAFFIC_H
#include <rte_ethdev.h>
#include <rte_hash.h>

#include "bench_flows.h"

enum place { NEAR, FAR, PLACES };
enum { TRAFFIC_BURST = 32, MOST_WORKERS = 16, MOST_SESSIONS = 1 << 20 };
enum { ISN_STEP = 1 << 12 };            /* between the first sequence numbers of two sessions: a SYN says whose it is */
enum { ESTABLISHED = 1 };

struct traffic_session {
	struct five_tuple local, wire;  /* as near and far sides know it, both as near sends */
	u32 sent[PLACES];                /* next sequence number of each end: its worker's */
	u32 heard[PLACES];               /* next one that each end expects: of whoever receives there */
	u32 state;
};

/* What a worker has done and found. */
struct tally {
	u64 sent[PLACES], received[PLACES], missing, late, bad_checksums, bad_acks, foreign;
	u64 stale;                      /* of the size before: whatever lies between the ports has kept them for long */
};

struct worker {
	u32 number;
	u32 size;                       /* of frames, with FCS */
	double rate;                    /* frames per second; 0: all that the ports take */
	struct tally tally;
};

struct traffic {
	struct traffic_session *session;
	u32 sessions, workers;
	u16 port[PLACES];
	struct rte_hash *by_ports;      /* far side: the session by both ports of its subsession */
	struct rte_mempool *pool;
	volatile int sending, receiving;
};

extern struct traffic all;

/* Ports with a queue for each worker.  Ends the process with one line if that cannot be. */
void devices_start(const char *near, const char *far, u32 memory_mb, u32 sessions);
void devices_stop(void);
void fail(int status, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* Sets all sessions up, by their handshakes; returns seconds.  Ends the process if they do not come about. */
double sessions_establish(void);

/* Sends and checks until it is told to stop; a thread's body. */
void *worker_run(void *worker);

/* The session of a frame that arrives at a side; 0: nobody's. */
struct traffic_session *session_of(enum place at, const struct rte_mbuf *m);

INLINE const struct wire_tcp *tcp_of(const struct rte_mbuf *m) { return rte_pktmbuf_mtod_offset(m, const struct wire_tcp *, AT_TCP); }
double now_s(void);

#endif
