/* SPDX-License-Identifier: Apache-2.0 */
/* A deterministic simulation of Dysco: agents on the host library, TCP end points of their own, a network that loses,
 * duplicates, reorders and delays.  Everything follows from the scenario and its seed.
 *
 * The end points and the observer of the wire (oracle.c) share no code with the core: they read packets themselves.
 */
#ifndef SIM_H
#define SIM_H
#include <stddef.h>
#include <stdint.h>

#include "agent.h"

enum { SIM_HOSTS = 12, SIM_SESSIONS = 64, SIM_TEXT = 400 };

/* Filled in by Python; all fields u32 so that both sides agree on the layout. */
struct scenario {
	uint32_t seed;
	uint32_t middleboxes;           /* hosts between client and server, 0..10 */
	uint32_t chain;                 /* how many of them sessions begin with */
	uint32_t sessions;
	uint32_t bytes[2];              /* of each session, rightward and leftward; the second half may be 0 */
	uint32_t reconfigurations;
	uint32_t loss_ppm, duplicate_ppm, reorder_ppm;
	uint32_t delay_us, jitter_us;
	uint32_t mss;
	uint32_t window_shift[2];
	uint32_t timestamps, sack, gso;
	uint32_t deaf;                  /* a middlebox that swallows SYN-ACKs, new paths' if it is not on the first chain; 0: none */
	uint32_t calm;                  /* reconfigurations of a session come one after the other; each must succeed (calm.c) */
	uint32_t sign;                  /* agents have keys, and some of what they send is forged */
	uint32_t slow;                  /* applications that read now and then only */
	uint32_t ports;                 /* for subsessions at each agent; 0: as many as there are */
	uint32_t proxy;                 /* a middlebox that terminates TCP for some of the sessions; 0: none */
	uint32_t nat;                   /* a middlebox that changes addresses and ports; 0: none */
	uint32_t dies;                  /* a middlebox that dies; 0: none */
	uint32_t moves;                 /* so often an end host goes from one of its two addresses to the other */
	uint32_t replays;               /* so often a message that has been received comes once more */
	uint32_t resize;                /* the path's MTU changes under way */
	uint32_t trace;                 /* print every packet */
};

struct outcome {
	char wrong[SIM_TEXT];           /* empty: every invariant held */
	uint64_t packets, bytes, virtual_us;
	uint32_t closed, done, refused, cancelled, unfinished;
	uint32_t paws, old_acks, timeouts, overshoot, late_echoes, too_wide;
	uint32_t entries_left;
	uint32_t proxies_gone, moved, replayed, lost, judged, invalid;
};

struct sim;
typedef uint64_t usec;

/* ---- end points: tcp.c ---- */

struct range {
	uint32_t from, to;
};

/* The bytes of a direction: `prefix` of a stream of their own, then a sender's from byte `cut` on.  A proxy's doing. */
struct content {
	uint64_t stream, own;
	uint32_t prefix, cut;
};

struct tcp {
	struct sim *sim;
	int host, other;                /* index in sim->end of the end that this one talks to */
	int beyond;                     /* of the one behind a proxy, once its sessions are joined; -1: none */
	uint32_t listens, relays, leaving;      /* leaving: its agent may give it a FIN at any place */
	be32 address, peer;
	be16 port, peer_port;
	enum { TCP_IDLE, TCP_OPENING, TCP_ANSWERING, TCP_OPEN } state;
	uint32_t iss, irs, snd_una, snd_nxt, snd_max, rcv_nxt;
	uint32_t window, own_window, shift_in, shift_out, mss;
	uint32_t read;                  /* bytes that the application has taken: a slow one lets the window close */
	uint32_t timestamps, sack;
	uint32_t ts_recent, ts_offset, last_ack_sent;
	uint32_t ts_echoed;             /* the last TSecr that it was shown; 0: none */
	uint32_t total, available;      /* bytes to send, bytes that the application has written so far */
	uint32_t fin_sent, fin_seen, peer_total;
	uint32_t lost;                  /* a host on its chain has died */
	uint32_t held;                  /* not to be ended yet */
	uint32_t edge_seen, edge, edge_ack, edge_ts;     /* the furthest window edge and the furthest acknowledgment that it was shown */
	uint32_t edge_unknown;          /* nobody can say what it should be shown */
	struct content out, in;         /* what is sent and expected */
	struct range early[16];
	uint32_t earlies, dup_acks, cwnd, backoff;
	usec rto_at, ack_at;
};

void tcp_open(struct tcp *t);
void tcp_receive(struct tcp *t, const struct packet *p);
void tcp_timer(struct tcp *t);
void tcp_write(struct tcp *t, uint32_t bytes);
void tcp_read(struct tcp *t);
void tcp_offer(struct tcp *t, uint32_t available);
int tcp_closed(const struct tcp *t);
/* The other end has acknowledged bytes: by then every agent has seen a window that is scaled.  A SYN-ACK's is not, but the core
 * takes it for one if a reconfiguration begins before. */
static inline int tcp_warm(const struct tcp *t) { return t->state == TCP_OPEN && t->snd_una - t->iss > 1; }

/* ---- the observer of the wire: oracle.c ---- */

void oracle_wire(struct sim *s, const struct packet *p, int end_host);
int oracle_checksum(const struct packet *p);

/* ---- signatures: sign.c ---- */

void sign_start(struct sim *s, int host);
struct view;
void sign_judge(struct sim *s, const struct packet *p, const struct view *v);
int sign_forge(struct sim *s, struct packet *p);

/* ---- proxies, NATs, addresses that change, messages that come again ---- */

struct proxy {
	struct tcp *inner, *outer;      /* 0: the session goes without one */
	uint32_t stays, spliced, left;  /* stays: joins its sessions but does not ask to be removed */
	usec at, wait;                  /* when it splices, asks, or closes next */
	u64 nonce, peer;
};

void proxies_start(struct sim *s);
void proxies_tick(struct sim *s);
/* A middlebox has been told that it is out. */
void proxy_left(struct sim *s, int host, u64 nonce);
int proxies_closed(const struct sim *s, uint32_t session);

struct nat {
	be32 src, outside;
	be16 sport, port;
	uint32_t session;
};

/* Rewrites what a NAT forwards; 0: it does not know the segment. */
int nat_forward(struct sim *s, int host, struct packet *p);
/* The session that a client's port, a proxy's or a NAT's belongs to; -1: none. */
int nat_session(const struct sim *s, uint32_t port);
int nat_knows(const struct sim *s, uint32_t session);

void moves_tick(struct sim *s);
uint32_t moves_done(struct sim *s);

struct recorded {
	int host;
	usec at;
	struct packet *packet;
};

void replay_record(struct sim *s, int host, const struct packet *p);
void replay_tick(struct sim *s);
void replay_free(struct sim *s);
void tables_print(struct sim *s, int host);

/* ---- strict firewalls: firewall.c ---- */

/* A segment passes one: at the link of a host, or in the middle of a middlebox. */
enum place { AT_LINK, INSIDE };
void firewall_judge(struct sim *s, int host, enum place place, const struct packet *p);
void firewall_free(struct sim *s);

struct passage;

/* ---- policies: policies.c ---- */

void policies_start(struct sim *s);

/* ---- the daemons: lead.c ---- */

/* How it ends is written to `result`, if there is one.  < 0: nothing has begun. */
enum result { PENDING, DONE, REFUSED, BUSY, CANCELLED };
u32 lead_txid(struct sim *s, int host, u64 nonce); /* of an epoch that is new to the session */
int lead_start(struct sim *s, int host, u64 nonce, struct command *c, enum result *result);
void lead_events(struct sim *s, int host);
extern void *sim_events;        /* a FILE: every event of every agent is written there, one a line; 0: nowhere */
/* What agents do not tell is written there too: a host is gone (EVENT_SESSION_LOST, for each nonce of a session that needed it),
 * a proxy has joined its two sessions. */
enum { NOTE_SPLICED = EVENTS };
void lead_note(struct sim *s, int host, u32 kind, u64 nonce, u64 value);
void lead_timer(struct sim *s);
uint32_t lead_pending(const struct sim *s);

/* ---- one reconfiguration after the other: calm.c ---- */

struct calm {
	int chain[SIM_HOSTS], next_chain[SIM_HOSTS], length, next_length;       /* indices of hosts; while one is under way */
	uint32_t left, under_way, first;                /* reconfigurations to come */
	uint32_t boxes, next_boxes, last_boxes;         /* sets of middleboxes */
	int anchor;
	usec asked_at;          /* for the first time */
	enum result result;
	struct command command;
	usec next_at;
};

void calm_start(struct sim *s);
void calm_tick(struct sim *s);
/* The session goes without a chain. */
void calm_bypassed(struct sim *s, u64 nonce);
/* A segment of a session has reached its end by these middleboxes. */
void calm_judge(struct sim *s, uint32_t session, uint32_t boxes);

/* ---- the whole: sim.c ---- */

struct lead {
	int host, active, ready, cancelling, answered;
	enum result *result;
	u64 nonce;
	u32 txid;
	usec started, next_at, wait;
};
struct forget {
	int host;
	u64 nonce;
	u32 txid, side;
	usec at;
};
enum { SIM_LEADS = 256, SIM_FORGETS = 1024, SIM_FLOWS = 8192, SIM_PASSAGES = 16384, SIM_RECORDED = 256 };

struct flow {
	struct five_tuple key;
	uint32_t used, isn, high;
};

struct event_at {
	usec at;
	uint64_t order;
	int host;
	struct packet *packet;
};

struct sim {
	struct scenario scenario;
	struct outcome outcome;
	usec now;
	uint64_t random, order;
	int hosts;
	struct agent *agent[SIM_HOSTS];
	be32 address[SIM_HOSTS], second[SIM_HOSTS];     /* second: end hosts that move have another */
	struct tcp end[4 * SIM_SESSIONS];               /* clients and servers, then both ends of proxies */
	struct proxy proxy[SIM_SESSIONS];
	struct nat nat[SIM_SESSIONS];
	uint32_t nats, moves_left, replays_left, lost;
	usec next_move, dies_at;
	struct recorded recorded[SIM_RECORDED];
	uint32_t records;
	struct passage *passage;
	struct event_at *heap;
	uint32_t heap_count, heap_room;
	struct lead lead[SIM_LEADS];
	int lead_lowest;        /* those before it have never been used: the last that is free is taken */
	struct forget forget[SIM_FORGETS];
	uint32_t forgets;
	struct flow flow[SIM_FLOWS];
	struct calm calm[SIM_SESSIONS];
	struct packet *pool;
};

/* A network that brings packets in the order of their path, once at most; one that brings all of them. */
static inline int sim_orderly(const struct sim *s)
{
	return !(s->scenario.duplicate_ppm + s->scenario.reorder_ppm + s->scenario.jitter_us);
}
static inline int sim_lossless(const struct sim *s)
{
	return sim_orderly(s) && !(s->scenario.loss_ppm + s->scenario.deaf + s->scenario.dies);
}
static inline int sim_dead(const struct sim *s, int host) { return s->scenario.dies && host == (int)s->scenario.dies && s->now >= s->dies_at; }
/* The hosts of a session's chain from the client on, as the agents know them, and by which nonce each has the subsession to
 * its right; a random change of a segment of it. */
int chain_of(struct sim *s, uint32_t session, int *chain, u64 *nonce);
u64 nonce_of(const struct sim *s, const struct tcp *t);
int draw_change(struct sim *s, uint32_t session, const int *chain, int n, int *left, int *right, struct command *c);
int host_at(const struct sim *s, be32 address);
uint32_t ends_of(const struct sim *s);

uint32_t sim_random(struct sim *s, uint32_t below);
void sim_wrong(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
int sim_run(const struct scenario *scenario, struct outcome *outcome);
/* The scenario of a seed: draw.c. */
void sim_scenario(uint32_t seed, struct scenario *scenario);
/* Every packet and event goes to a file as well, for pictures; 0: no more. */
int sim_record(const char *path);
extern void *sim_recorder;

/* ---- packets under way: network.c ---- */

struct packet *sim_packet(struct sim *s);
void sim_recycle(struct sim *s, struct packet *p);
struct packet *sim_copy(struct sim *s, const struct packet *p);
/* A host's stack sends: the packet passes its agent's egress. */
void sim_host_sends(struct sim *s, int host, struct packet *p);
/* A packet reaches a host's agent; how its pass ended, before anything else happens. */
enum way sim_arrives(struct sim *s, int host, struct packet *p);
void sim_passed(struct sim *s, int host, struct packet *p, enum way way, int leaving);
/* What an agent has sent beside the packet of its last pass. */
void sim_outbox(struct sim *s, int host);
void sim_set_time(struct sim *s, usec now);
/* Delivers what arrives until then. */
void sim_run_until(struct sim *s, usec until);
void sim_network_free(struct sim *s);

/* Numbers on the wire, for end points and observer. */
static inline uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }
static inline uint32_t get16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline void put32(uint8_t *p, uint32_t v) { p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v; }
static inline void put16(uint8_t *p, uint32_t v) { p[0] = v >> 8, p[1] = v; }
static inline int after(uint32_t a, uint32_t b) { return (int32_t)(a - b) > 0; }
static inline uint32_t be32_at(const uint8_t *p) { uint32_t v; __builtin_memcpy(&v, p, 4); return v; }
static inline uint8_t stream_byte(uint64_t seed, uint32_t at)
{
	uint64_t x = (seed + at) * 0x9e3779b97f4a7c15u;
	return (uint8_t)((x ^ x >> 29) * 0xbf58476d1ce4e5b9u >> 56);
}

enum { F_FIN = 1, F_SYN = 2, F_RST = 4, F_PSH = 8, F_ACK = 16 };
enum { IP_AT = 14, TCP_AT = 34, PAYLOAD_MAX = 12000, SERVER_PORT = 5001, CLIENT_PORT = 40000, OUTER_PORT = 52000 };

/* A segment's header, read by the observer's and the end points' own parser. */
struct view {
	uint32_t src, dst, sport, dport, seq, ack, flags, window, payload, data_at;
	uint32_t has_ts, tsval, tsecr, sacks, mss, scale, has_scale, sack_ok, control, told;
	struct range sack[4];
};
static inline uint8_t content_byte(const struct content *c, uint32_t at)
{
	return at < c->prefix ? stream_byte(c->own, at) : stream_byte(c->stream, at - c->prefix + c->cut);
}
int view_read(const struct packet *p, struct view *v);
void sim_checksum(struct packet *p);

#endif
