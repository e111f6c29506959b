/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: whose a frame is, and how they are set up. */
#include <time.h>

#include "traffic.h"

enum { AT_ONCE = 256 };
static const double WAIT_S = 0.02, PATIENCE_S = 10;
static const u8 syn_options[20] = { 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7 };

double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int is_ours(const struct rte_mbuf *m)
{
	const struct wire_ethernet *ethernet = rte_pktmbuf_mtod(m, const struct wire_ethernet *);
	const struct wire_ip *ip = (const struct wire_ip *)(ethernet + 1);

	return m->data_len >= AT_OPTIONS && ethernet->type == be16_of(ETHERTYPE_IPV4) && ip->version_length == 0x45 &&
	       ip->protocol == PROTOCOL_TCP;
}

static u32 ports(const struct five_tuple *t) { return (u32)t->sport << 16 | t->dport; }

/* A number that no session has: nobody's. */
static u32 by_ports(const struct five_tuple *t)
{
	u32 key = ports(t);
	void *number;

	return rte_hash_lookup_data(all.by_ports, &key, &number) < 0 ? MOST_SESSIONS : (u32)(uintptr_t)number;
}

struct traffic_session *session_of(enum place at, const struct rte_mbuf *m)
{
	if (!is_ours(m))
		return 0;
	struct five_tuple is = frame_tuple(m), should = is;
	u32 server = (u32)be16_of(is.sport) - FIRST_SERVER_PORT, client = (u32)be16_of(is.dport) - FIRST_CLIENT_PORT;
	u32 i = at == FAR ? by_ports(&is) : server * FLOWS_OF_A_PORT + client;
	if (i >= all.sessions)
		return 0;
	struct traffic_session *s = &all.session[i];
	should = at == FAR ? s->wire : reversed(&s->local);
	return same_tuple(&is, &should) ? s : 0;
}

/* ---- set-up ---- */

static void send_one(enum place from, struct traffic_session *s, u32 flags, const u8 *options)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(all.pool);
	struct wanted w = { .tuple = from == NEAR ? s->local : reversed(&s->wire), .flags = flags, .options = options,
			    .seq = s->sent[from] - !!(flags & TCP_SYN), .ack = flags & TCP_ACK ? s->sent[!from] : 0,
			    .bytes = AT_OPTIONS + (options ? SYN_HEADER - 20 : 0) };

	if (!m)
		return;
	frame_write(m, &w);
	if (!rte_eth_tx_burst(all.port[from], 0, &m, 1))
		rte_pktmbuf_free(m);
}

/* A SYN has come out: its subsession is what the session is called there. */
static void answer_syn(const struct rte_mbuf *m)
{
	u32 i = be32_of(tcp_of(m)->seq) / ISN_STEP;

	if (i >= all.sessions || !is_ours(m))
		return;
	struct traffic_session *s = &all.session[i];
	struct five_tuple wire = frame_tuple(m);
	u32 key = ports(&wire);
	if (rte_hash_add_key_data(all.by_ports, &key, (void *)(uintptr_t)i))
		fail(1, "no memory for the ports of session %u", i);
	s->wire = wire;
	send_one(FAR, s, TCP_SYN | TCP_ACK, syn_options);
}

static u32 answer_syn_ack(const struct rte_mbuf *m)
{
	struct traffic_session *s = session_of(NEAR, m);

	if (!s || s->state == ESTABLISHED || !frame_right(m))
		return 0;
	s->state = ESTABLISHED;
	send_one(NEAR, s, TCP_ACK, 0);
	return 1;
}

/* Answers what has come; returns sessions that are established now. */
static u32 answer_all(void)
{
	struct rte_mbuf *frames[TRAFFIC_BURST];
	u32 more = 0;

	for (enum place at = NEAR; at <= FAR; at++)
		for (u16 queue = 0; queue < all.workers; queue++) {
			u16 n = rte_eth_rx_burst(all.port[at], queue, frames, TRAFFIC_BURST);
			for (u16 i = 0; i < n; i++) {
				u32 flags = is_ours(frames[i]) ? tcp_of(frames[i])->flags & (TCP_SYN | TCP_ACK) : 0;
				if (at == FAR && flags == TCP_SYN)
					answer_syn(frames[i]);
				else if (at == NEAR && flags == (TCP_SYN | TCP_ACK))
					more += answer_syn_ack(frames[i]);
			}
			rte_pktmbuf_free_bulk(frames, n);
		}
	return more;
}

static u32 ask(u32 first)
{
	u32 asked = 0;

	for (u32 i = first; i < RTE_MIN(first + AT_ONCE, all.sessions); i++)
		if (all.session[i].state != ESTABLISHED) {
			send_one(NEAR, &all.session[i], TCP_SYN, syn_options);
			asked++;
		}
	return asked;
}

/* A batch at a time: the next one when all of it is there, or again after a while. */
double sessions_establish(void)
{
	double start = now_s(), last = start;

	for (u32 i = 0; i < all.sessions; i++) {
		struct flow f;
		flow_make(&f, i);
		u32 far = (u32)rte_rand();
		all.session[i] = (struct traffic_session){ .local = f.local, .wire = f.local, .sent = { i * ISN_STEP + 1, far },
							   .heard = { far, i * ISN_STEP + 1 } };
	}
	for (u32 first = 0; first < all.sessions;) {
		u32 missing = ask(first), before = missing;
		for (double until = now_s() + WAIT_S; missing && now_s() < until;)
			missing -= answer_all();
		if (missing < before)
			last = now_s();
		if (now_s() - last > PATIENCE_S)
			fail(1, "%u of %u sessions, and no more for %.0f s", first, all.sessions, PATIENCE_S);
		first += missing ? 0 : AT_ONCE;
	}
	return now_s() - start;
}
