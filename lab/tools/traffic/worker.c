/* SPDX-License-Identifier: Apache-2.0 */
/* One worker: sends data of its sessions in random order, both ends in turn, and checks what arrives. */
#include <rte_lcore.h>

#include "sequence.h"
#include "traffic.h"

static u32 payload(const struct worker *w) { return w->size - FRAME_FCS - AT_OPTIONS; }

/* ---- sending ---- */

static struct traffic_session *any_session(const struct worker *w)
{
	u32 own = (all.sessions - w->number + all.workers - 1) / all.workers;

	return &all.session[w->number + all.workers * (u32)rte_rand_max(own)];
}

static void write_next(const struct worker *w, enum place from, struct traffic_session *s, struct rte_mbuf *m)
{
	struct wanted want = { .tuple = from == NEAR ? s->local : reversed(&s->wire), .seq = s->sent[from], .ack = s->heard[from],
			       .flags = TCP_ACK | TCP_PSH, .bytes = w->size - FRAME_FCS };

	s->sent[from] += payload(w);
	frame_write(m, &want);
}

static void send_burst(struct worker *w, enum place from)
{
	struct traffic_session *of[TRAFFIC_BURST];
	struct rte_mbuf *frames[TRAFFIC_BURST];

	if (rte_pktmbuf_alloc_bulk(all.pool, frames, TRAFFIC_BURST))
		return; /* all are under way */
	for (u32 i = 0; i < TRAFFIC_BURST; i++) {
		of[i] = any_session(w);
		write_next(w, from, of[i], frames[i]);
	}
	u32 sent = rte_eth_tx_burst(all.port[from], (u16)w->number, frames, TRAFFIC_BURST);
	w->tally.sent[from] += sent;
	for (u32 i = TRAFFIC_BURST; i-- > sent;)
		of[i]->sent[from] -= payload(w); /* the port has not taken it: it was never sent */
	rte_pktmbuf_free_bulk(frames + sent, TRAFFIC_BURST - sent);
}

/* ---- checking ---- */

static void check(struct worker *w, enum place at, const struct rte_mbuf *m)
{
	struct traffic_session *s = session_of(at, m);
	struct tally *t = &w->tally;

	if (s && m->data_len == AT_OPTIONS)
		return; /* the last acknowledgment of a handshake */
	if (!s) {
		t->foreign++;
		return;
	}
	if (!frame_right(m)) {
		t->bad_checksums++;
		return;
	}
	if (m->data_len != w->size - FRAME_FCS) {
		t->stale++;
		return;
	}
	t->received[at]++;
	u32 seq = be32_of(tcp_of(m)->seq), ack = be32_of(tcp_of(m)->ack);
	if (seq_before(s->sent[at], ack))
		t->bad_acks++; /* of what was never sent */
	if (seq_before(seq, s->heard[at])) {
		t->late++;
		return;
	}
	t->missing += (seq - s->heard[at]) / payload(w);
	s->heard[at] = seq + payload(w);
}

static void receive_burst(struct worker *w, enum place at)
{
	struct rte_mbuf *frames[TRAFFIC_BURST];
	u16 n = rte_eth_rx_burst(all.port[at], (u16)w->number, frames, TRAFFIC_BURST);

	for (u16 i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(frames[i], void *));
	for (u16 i = 0; i < n; i++)
		check(w, at, frames[i]);
	rte_pktmbuf_free_bulk(frames, n);
}

void *worker_run(void *worker)
{
	struct worker *w = worker;
	double start = now_s();

	if (w->number)
		rte_thread_register(); /* its own cache of frames */
	while (all.receiving) {
		receive_burst(w, NEAR);
		receive_burst(w, FAR);
		u64 sent = w->tally.sent[NEAR] + w->tally.sent[FAR];
		if (!all.sending || (w->rate > 0 && (double)sent >= w->rate * (now_s() - start)))
			continue;
		send_burst(w, NEAR);
		send_burst(w, FAR);
	}
	if (w->number)
		rte_thread_unregister();
	return 0;
}
