/* SPDX-License-Identifier: Apache-2.0 */
/* What one pass of the agent costs on one core: established sessions, visited at random, beside plain forwarding of the
 * same bursts in the same run.  Prints lines "subject,quantity,value"; lab/experiments/bench_dpdk.py makes a run of them.
 *
 * A batch of frames lies in a ring; the loop takes bursts from it (a net_ring port), treats them, and sends them to another
 * ring.  Only that loop is timed, by the processor time of this thread: the frames are written before, and checked after.
 * What is printed of many batches is their median.
 */
#include <stdio.h>
#include <time.h>

#include <rte_eth_ring.h>

#include "bench_flows.h"
#include "ports.h"
#include "worker.h"

enum { BATCH = 2048, POOL = 8191, PORTS_FIRST = 20000, PORTS_COUNT = 40000, MSS = 1460, MOST_BATCHES = 1000 };
enum way_of { PLAIN, EGRESS, INGRESS };

static struct rte_ring *into, *out_of;
static struct rte_mempool *pool;
static struct agent *agent;
static struct flow *flows;
static u32 sessions, checked, bad;
static const char *const names[] = { "plain", "egress", "ingress" };
static const u8 syn_options[20] = { 2, 4, MSS >> 8, MSS & 255, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7 };

/* ---- set-up ---- */

static u16 ring_port(const char *name, struct rte_ring *from, struct rte_ring *to)
{
	int port = rte_eth_from_rings(name, &from, 1, &to, 1, SOCKET_ID_ANY);

	if (port < 0 || port_start((u16)port, pool))
		fail(1, "port %s does not start", name);
	return (u16)port;
}

static struct rte_ring *ring(const char *name)
{
	struct rte_ring *r = rte_ring_create(name, 2 * BATCH, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);

	if (!r)
		fail(1, "no memory for ring %s", name);
	return r;
}

/* What the daemon would write: one interface, a policy that sends everything by one middlebox, its next hop. */
static void agent_configure(u32 sign)
{
	be32 own = address(10, 0, 0, 1), box = address(10, 0, 1, 2);
	struct hop_key key = { box, 0 };
	u32 index = DAEMON_NEXT_HOPS;

	agent->config = (struct config){ .layout_version = LAYOUT_VERSION, .first_port = PORTS_FIRST, .ports = PORTS_COUNT, .policy_slots = 1,
					 .interface_count = 1, .domains = 1, .interfaces = { { 1, own } } };
	agent->config.domain[0].sign = sign;
	agent->key[0].valid = sign;
	agent->policy[0] = (struct policy){ .id = 1, .insns = 1, .chain_length = 1, .chain = { box }, .filter = { { 0x06, 0, 0, 1 } } };
	agent->hop[index] = (struct next_hop){ .address = box, .ifindex = 1, .destination = { 2, 0, 0, 0, 1, 2 },
					       .source = { 2, 0, 0, 0, 0, 1 }, .resolved = 1, .from = own };
	table_put(&agent->hop_index, &key, &index);
}

static void bench_start(u32 sign)
{
	struct options o = { .core = -1, .memory_mb = 128, .prefix = "dysco-bench" };

	environment_start(&o);
	pool = rte_pktmbuf_pool_create("frames", POOL, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	agent = agent_new(sessions);
	flows = memory_take((u64)sessions * sizeof(*flows));
	if (!pool || !agent || !flows)
		fail(1, "no memory for %u sessions", sessions);
	into = ring("into");
	out_of = ring("out-of");
	close(agent->routes.fd);
	agent->routes.fd = -1;
	agent->pool = pool;
	agent->pairs = 1;
	agent->pair[0].ifindex = 1;
	/* one direction at a time: both ports take from one ring and give to the other */
	agent->pair[0].wire.port = ring_port("wire", into, out_of);
	agent->pair[0].host.port = ring_port("host", into, out_of);
	agent_configure(sign);
	for (u32 i = 0; i < sessions; i++)
		flow_make(&flows[i], i);
}

/* ---- the loop that is timed ---- */

static void swap_addresses(struct rte_mbuf **frames, u32 n)
{
	for (u32 i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(frames[i], void *));
	for (u32 i = 0; i < n; i++) {
		struct wire_ethernet *ethernet = rte_pktmbuf_mtod(frames[i], struct wire_ethernet *);
		u8 swap[6];
		memcpy(swap, ethernet->destination, 6);
		memcpy(ethernet->destination, ethernet->source, 6);
		memcpy(ethernet->source, swap, 6);
		queue_add(&agent->pair[0].wire, frames[i]);
	}
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Moves all that lies in the ring; returns ns. */
static double forward(enum way_of way)
{
	struct pair *pair = &agent->pair[0];
	struct rte_mbuf *frames[BURST];
	double start = now_ns();

	for (u32 n; (n = rte_eth_rx_burst(pair->wire.port, 0, frames, BURST)); agent_flush(agent)) {
		if (way == PLAIN)
			swap_addresses(frames, n);
		else if (way == EGRESS)
			agent_egress(agent, pair, frames, n);
		else
			agent_ingress(agent, pair, frames, n);
	}
	return now_ns() - start;
}

/* ---- batches ---- */

struct batch {
	enum way_of way;
	struct wanted want;     /* but tuple and numbers */
	u32 first;              /* flows from here on, in order; or */
	int random;
};

static struct rte_mbuf *frames_of[BATCH];
static u32 flow_of[BATCH];

/* The next frame of a flow: data advances, and so does what it acknowledges. */
static void flow_next(struct flow *f, struct batch *b, struct rte_mbuf *m)
{
	struct wanted *w = &b->want;
	u32 bytes = w->bytes - AT_OPTIONS - (w->options ? 20 : 0) + !!(w->flags & TCP_SYN);

	if (b->way == INGRESS) {
		w->tuple = reversed(&f->wire);
		w->seq = f->received;
		w->ack = f->sent;
		f->received += bytes;
	} else {
		w->tuple = f->local;
		w->seq = f->sent;
		w->ack = w->flags & TCP_ACK ? f->received : 0;
		f->sent += bytes;
	}
	frame_write(m, w);
}

static void batch_write(struct batch *b, u32 n)
{
	if (rte_pktmbuf_alloc_bulk(pool, frames_of, n))
		fail(1, "frames have been lost");
	for (u32 i = 0; i < n; i++) {
		flow_of[i] = b->random ? (u32)rte_rand_max(sessions) : b->first + i;
		flow_next(&flows[flow_of[i]], b, frames_of[i]);
	}
	if (rte_ring_enqueue_bulk(into, (void **)frames_of, n, 0) != n)
		fail(1, "the ring is full");
}

/* Takes what has come out: as many as went in, in the same order, translated, with right checksums. */
static void batch_check(const struct batch *b, u32 n)
{
	struct rte_mbuf *m[BATCH];
	u32 got = rte_ring_dequeue_burst(out_of, (void **)m, BATCH, 0);

	bad += got < n ? n - got : 0;
	for (u32 i = 0; i < got; i++, checked++) {
		struct flow *f = &flows[flow_of[i]];
		struct five_tuple is = frame_tuple(m[i]), should = b->way == EGRESS ? f->wire : reversed(&f->local);
		bad += !frame_right(m[i]) || (b->way != PLAIN && !same_tuple(&is, &should));
	}
	rte_pktmbuf_free_bulk(m, got);
}

/* ---- set-up of sessions ---- */

static double handshake_step(enum way_of way, u32 first, u32 n, u32 flags, const u8 *options)
{
	struct batch b = { .way = way, .want = { .flags = flags, .options = options, .bytes = AT_OPTIONS + (options ? 20 : 0) }, .first = first };

	batch_write(&b, n);
	double ns = forward(way);
	if (way == EGRESS && flags == TCP_SYN) { /* the subsession is what has come out */
		struct rte_mbuf *m[BATCH];
		u32 got = rte_ring_dequeue_burst(out_of, (void **)m, BATCH, 0);
		for (u32 i = 0; i < got; i++)
			flows[first + i].wire = frame_tuple(m[i]);
		bad += got != n;
		rte_pktmbuf_free_bulk(m, got);
	} else {
		batch_check(&b, n);
	}
	return ns;
}

static u64 resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	u64 pages = 0;

	if (!f || fscanf(f, "%*u %llu", &pages) != 1)
		fail(1, "/proc/self/statm cannot be read");
	fclose(f);
	return pages * (u64)sysconf(_SC_PAGESIZE);
}

static void establish(void)
{
	u64 before = resident();
	double ns = 0;

	for (u32 first = 0; first < sessions; first += BATCH) {
		u32 n = RTE_MIN((u32)BATCH, sessions - first);
		ns += handshake_step(EGRESS, first, n, TCP_SYN, syn_options);
		ns += handshake_step(INGRESS, first, n, TCP_SYN | TCP_ACK, syn_options);
		ns += handshake_step(EGRESS, first, n, TCP_ACK, 0);
	}
	printf("setup,setup_per_second,%.0f\n", sessions * 1e9 / ns);
	printf("setup,bytes_per_session,%.1f\n", (double)(resident() - before) / sessions);
	if (agent->sessions.table.count != sessions || bad)
		fail(1, "%u of %u sessions, %u frames wrong", agent->sessions.table.count, sessions, bad);
}

/* ---- measurement ---- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void sample(enum way_of way, u32 size, u32 batches)
{
	struct batch b = { .way = way, .want = { .flags = TCP_ACK | TCP_PSH, .bytes = size - FRAME_FCS }, .random = 1 };
	double ns[MOST_BATCHES];

	for (u32 i = 0; i < batches; i++) {
		batch_write(&b, BATCH);
		ns[i] = forward(way) / BATCH;
		batch_check(&b, BATCH);
	}
	qsort(ns, batches, sizeof(*ns), by_size);
	printf("%s_%u,ns_per_packet,%.3f\n", names[way], size, ns[batches / 2]);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		fail(2, "usage: dysco-dpdk-bench SESSIONS ROUNDS BATCHES SIGN SIZE...");
	sessions = (u32)atoi(argv[1]);
	u32 rounds = (u32)atoi(argv[2]), batches = RTE_MIN((u32)atoi(argv[3]), (u32)MOST_BATCHES);
	bench_start((u32)atoi(argv[4]));
	establish();
	u64 before = resident();
	for (u32 round = 0; round < rounds; round++)
		for (int i = 5; i < argc; i++)
			for (enum way_of way = PLAIN; way <= INGRESS; way++)
				sample(way, (u32)atoi(argv[i]), batches);
	printf("check,frames,%u\ncheck,checksums_bad,%u\n", checked, bad);
	printf("check,grown_bytes,%lld\n", (long long)(resident() - before));
	return 0;
}
