/* SPDX-License-Identifier: Apache-2.0 */
/* What one pass of the agent costs: established sessions, visited at random, beside plain forwarding of the same bursts in
 * the same run, on one core or several.  Prints lines "subject,quantity,value"; lab/experiments/bench_dpdk.py makes a run of
 * them.
 *
 * A batch of frames lies in rings; the loop takes bursts from them (a net_ring port), treats them, and sends them to other
 * rings.  Only that loop is timed, by the processor time of its threads: the frames are written before, and checked after.
 * What is printed of many batches is their median.
 */
#include <rte_launch.h>
#include <rte_lcore.h>

#include "bench_rig.h"

enum { POOL = 8191, MSS = 1460, MOST_BATCHES = 1000 };
enum way_of { PLAIN, EGRESS, INGRESS };
/* How frames come to several cores: by the NIC's hash, or all to the first, which hands them on. */
enum spreading { BY_HASH, BY_HAND };

static struct rte_ring *into[MAX_CORES], *out_of[MAX_CORES];
static struct shared *shared;
static struct flow *flows;
static u32 cores, sessions, checked, bad;
static enum spreading spreading;
static const char *const names[] = { "plain", "egress", "ingress" };
static const u8 syn_options[20] = { 2, 4, MSS >> 8, MSS & 255, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7 };

/* ---- set-up ---- */

static void bench_start(u32 sign)
{
	struct options o = { .cores = cores, .memory_mb = 128, .prefix = "dysco-bench" };

	for (u32 i = 0; i < MAX_CORES; i++)
		o.processor[i] = -1;
	environment_start(&o);
	shared = agents_new(cores, sessions);
	flows = memory_take((u64)sessions * sizeof(*flows));
	if (!shared || !flows)
		fail(1, "no memory for %u sessions", sessions);
	shared->pool = rte_pktmbuf_pool_create("frames", POOL, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!shared->pool)
		fail(1, "no memory for frames");
	for (u32 i = 0; i < cores; i++) {
		into[i] = bench_ring("into", i);
		out_of[i] = bench_ring("out-of", i);
	}
	/* one direction at a time: both ports take from the same rings and give to the same */
	u16 wire = bench_port("wire", shared, into, out_of), host = bench_port("host", shared, into, out_of);
	for (u32 i = 0; i < cores; i++) {
		struct pair *pair = &shared->agent[i]->pair[0];
		shared->agent[i]->pairs = 1;
		pair->ifindex = 1;
		pair->wire = (struct queue){ .port = wire, .number = (u16)i };
		pair->host = (struct queue){ .port = host, .number = (u16)i };
	}
	bench_configure(shared, address(10, 0, 0, 1), address(10, 0, 1, 2), address(10, 0, 1, 2), sign);
	for (u32 i = 0; i < sessions; i++)
		flow_make(&flows[i], i);
}

/* ---- the loop that is timed ---- */

/* A batch under way. */
struct job {
	enum way_of way;
	u32 frames, started, done;
	double ns[MAX_CORES];
};

static void swap_addresses(struct agent *a, struct rte_mbuf **frames, u32 n)
{
	for (u32 i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(frames[i], void *));
	for (u32 i = 0; i < n; i++) {
		struct wire_ethernet *ethernet = rte_pktmbuf_mtod(frames[i], struct wire_ethernet *);
		u8 swap[6];
		memcpy(swap, ethernet->destination, 6);
		memcpy(ethernet->destination, ethernet->source, 6);
		memcpy(ethernet->source, swap, 6);
		queue_add(&a->pair[0].wire, frames[i]);
	}
}

/* One look at the rings; returns frames. */
static u32 look(struct agent *a, enum way_of way)
{
	struct rte_mbuf *frames[BURST];
	struct pair *pair = &a->pair[0];
	u32 n = rte_eth_rx_burst(pair->wire.port, pair->wire.number, frames, BURST);

	if (n && way == PLAIN)
		swap_addresses(a, frames, n);
	else if (n)
		agent_frames(a, pair, frames, n, way == INGRESS);
	if (cores > 1)
		n += agent_lanes(a);
	agent_flush(a);
	return n;
}

/* One core's part: until its ring is empty, or, if it may be handed more, until all frames have left. */
static int forward_part(void *context)
{
	struct job *job = context;
	u32 core = cores > 1 ? rte_lcore_id() : 0;
	struct agent *a = shared->agent[core];
	struct pair *pair = &a->pair[0];

	__atomic_fetch_add(&job->started, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&job->started, __ATOMIC_ACQUIRE) < cores)
		rte_pause();
	double start = bench_now();
	for (;;) {
		u64 sent = pair->wire.sent + pair->host.sent;
		u32 n = look(a, job->way);
		if (cores == 1 || spreading == BY_HASH) {
			if (!n)
				break;
			continue;
		}
		sent = pair->wire.sent + pair->host.sent - sent;
		if (sent)
			__atomic_fetch_add(&job->done, (u32)sent, __ATOMIC_RELAXED);
		if (__atomic_load_n(&job->done, __ATOMIC_RELAXED) >= job->frames)
			break;
	}
	job->ns[core] = bench_now() - start;
	return 0;
}

/* Moves all that lies in the rings; returns the time of the core that took longest, ns. */
static double forward(enum way_of way, u32 frames)
{
	struct job job = { .way = way, .frames = frames };
	double ns = 0;

	if (cores > 1) {
		rte_eal_mp_remote_launch(forward_part, &job, CALL_MAIN);
		rte_eal_mp_wait_lcore();
	} else {
		forward_part(&job);
	}
	for (u32 i = 0; i < cores; i++)
		ns = RTE_MAX(ns, job.ns[i]);
	return ns;
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
	if (rte_pktmbuf_alloc_bulk(shared->pool, frames_of, n))
		fail(1, "frames have been lost");
	for (u32 i = 0; i < n; i++) {
		flow_of[i] = b->random ? (u32)rte_rand_max(sessions) : b->first + i;
		b->want.id = (u16)i;
		flow_next(&flows[flow_of[i]], b, frames_of[i]);
		u32 core = spreading == BY_HASH ? core_of(&shared->spread, &b->want.tuple) : 0;
		if (rte_ring_enqueue(into[core], frames_of[i]))
			fail(1, "a ring is full");
	}
}

/* What has come out, of all cores. */
static u32 batch_take(struct rte_mbuf **m)
{
	u32 got = 0;

	for (u32 i = 0; i < cores; i++)
		got += rte_ring_dequeue_burst(out_of[i], (void **)(m + got), BATCH - got, 0);
	return got;
}

/* As many as went in, each known by its number, translated, with right checksums. */
static void batch_check(const struct batch *b, u32 n)
{
	struct rte_mbuf *m[BATCH];
	u32 got = batch_take(m);

	bad += got < n ? n - got : 0;
	for (u32 i = 0; i < got; i++, checked++) {
		struct flow *f = &flows[flow_of[frame_id(m[i]) % BATCH]];
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
	double ns = forward(way, n);
	if (way == EGRESS && flags == TCP_SYN) { /* the subsession is what has come out */
		struct rte_mbuf *m[BATCH];
		u32 got = batch_take(m);
		for (u32 i = 0; i < got; i++)
			flows[first + frame_id(m[i])].wire = frame_tuple(m[i]);
		bad += got != n;
		rte_pktmbuf_free_bulk(m, got);
	} else {
		batch_check(&b, n);
	}
	return ns;
}

static u32 sessions_there(void)
{
	u32 all = 0;

	for (u32 i = 0; i < cores; i++)
		all += shared->agent[i]->sessions.table.count;
	return all;
}

static void establish(void)
{
	u64 before = bench_resident();
	double ns = 0;

	for (u32 first = 0; first < sessions; first += BATCH) {
		u32 n = RTE_MIN((u32)BATCH, sessions - first);
		ns += handshake_step(EGRESS, first, n, TCP_SYN, syn_options);
		ns += handshake_step(INGRESS, first, n, TCP_SYN | TCP_ACK, syn_options);
		ns += handshake_step(EGRESS, first, n, TCP_ACK, 0);
	}
	printf("setup,setup_per_second,%.0f\n", sessions * 1e9 / ns);
	printf("setup,bytes_per_session,%.1f\n", (double)(bench_resident() - before) / sessions);
	if (sessions_there() != sessions || bad)
		fail(1, "%u of %u sessions, %u frames wrong", sessions_there(), sessions, bad);
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
		ns[i] = forward(way, BATCH) / BATCH;
		batch_check(&b, BATCH);
	}
	qsort(ns, batches, sizeof(*ns), by_size);
	printf("%s_%u,ns_per_packet,%.3f\n", names[way], size, ns[batches / 2]);
}

/* By how much the busiest core had more than its share, and what was handed on, per cent. */
static void print_cores(void)
{
	u64 most = 0, all = 0, handed = 0;

	for (u32 i = 0; i < cores; i++) {
		const struct agent *a = shared->agent[i];
		u64 sent = a->pair[0].wire.sent + a->pair[0].host.sent;
		most = RTE_MAX(most, sent);
		all += sent;
		handed += a->handed;
	}
	printf("cores,busiest_share_pct,%.1f\ncores,handed_on_pct,%.1f\n", 100.0 * (double)most / (double)all,
	       100.0 * (double)handed / (double)all);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "reconfigure"))
		return bench_reconfigure((u32)atoi(argv[2]), strtoull(argv[3], 0, 10), (u32)atoi(argv[4]));
	if (argc < 7)
		fail(2, "usage: dysco-dpdk-bench CORES hash|hand SESSIONS ROUNDS BATCHES SIGN SIZE...\n"
			"       dysco-dpdk-bench reconfigure SESSIONS FRAMES A-SECOND");
	cores = RTE_MIN(RTE_MAX((u32)atoi(argv[1]), 1u), (u32)MAX_CORES);
	spreading = strcmp(argv[2], "hand") ? BY_HASH : BY_HAND;
	sessions = (u32)atoi(argv[3]);
	u32 rounds = (u32)atoi(argv[4]), batches = RTE_MIN((u32)atoi(argv[5]), (u32)MOST_BATCHES);
	bench_start((u32)atoi(argv[6]));
	establish();
	u64 before = bench_resident();
	for (u32 round = 0; round < rounds; round++)
		for (int i = 7; i < argc; i++)
			for (enum way_of way = PLAIN; way <= INGRESS; way++)
				sample(way, (u32)atoi(argv[i]), batches);
	printf("check,frames,%u\ncheck,checksums_bad,%u\n", checked, bad);
	printf("check,grown_bytes,%lld\n", (long long)(bench_resident() - before));
	if (cores > 1)
		print_cores();
	return 0;
}
