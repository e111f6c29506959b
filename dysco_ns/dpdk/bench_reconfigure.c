/* SPDX-License-Identifier: Apache-2.0 */
/* What reconfigurations cost the sessions beside them: two agents, a client's and a server's, on one core, with a wire of
 * rings between them.  So many sessions a second get a new path, by the whole protocol, while all of them send at random.
 *
 * Only the client's agent is timed: its frames, its control messages, and its daemon's commands, which this program gives
 * as the daemon would.  "A second" is one of that time.
 */
#include "bench_rig.h"

enum { MSS = 1460, FRAME = 64 - FRAME_FCS, PAYLOAD = FRAME - AT_OPTIONS, RECONF_POOL = 16383, MAX_ATTEMPTS = 1 << 14 };
enum { CLIENT, SERVER, RELEASE_AGAIN_NS = 5000000, SETTLE_NS = 200000000, COMMAND_FRAME = AT_IP + sizeof(struct command) };

static const u8 syn_options[20] = { 2, 4, MSS >> 8, MSS & 255, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7 };

/* An agent and its host's stack. */
struct end {
	struct shared *shared;
	struct agent *agent;
	struct rte_ring *from_stack, *to_stack;
	be32 address;
};

struct attempt {
	u64 nonce;
	u32 txid;
	u8 ready, over, settled;
	double next;            /* when to say release again, or to forget */
};

static struct end ends[2];
static struct flow *flows;
static u16 *epochs;
static u32 sessions, frames_checked, wrong;
static u64 payload_lost;
static struct attempt attempt[MAX_ATTEMPTS];
static u32 attempts, done, failed;
static double clock_ns;         /* what the client's agent has taken so far */

/* ---- made ---- */

static void end_make(struct end *e, const char *name, be32 own, be32 other, struct rte_ring *wire_in, struct rte_ring *wire_out,
		     struct rte_mempool *pool)
{
	char host[16], wire[16];

	snprintf(host, sizeof(host), "%.8s-host", name);
	snprintf(wire, sizeof(wire), "%.8s-wire", name);
	e->shared = agents_new(1, sessions);
	if (!e->shared)
		fail(1, "no memory for %u sessions", sessions);
	e->shared->pool = pool;
	e->agent = e->shared->agent[0];
	e->address = own;
	e->from_stack = bench_ring(host, 0);
	e->to_stack = bench_ring(host, 1);
	bench_configure(e->shared, own, 0, other, 0);
	e->shared->config.policy_slots = own == address(10, 0, 0, 1);
	struct pair *pair = &e->agent->pair[0];
	e->agent->pairs = e->shared->pairs = 1;
	pair->ifindex = 1;
	pair->wire = (struct queue){ .port = bench_port(wire, e->shared, &wire_in, &wire_out) };
	pair->host = (struct queue){ .port = bench_port(host, e->shared, &e->from_stack, &e->to_stack) };
}

static void both_make(void)
{
	struct options o = { .cores = 1, .memory_mb = 192, .prefix = "dysco-bench", .processor = { -1 } };

	environment_start(&o);
	struct rte_mempool *pool = rte_pktmbuf_pool_create("frames", RECONF_POOL, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	struct rte_ring *right = bench_ring("rightward", 0), *left = bench_ring("leftward", 0);
	be32 client = address(10, 0, 0, 1), server = address(10, 9, 0, 2);
	flows = memory_take((u64)sessions * sizeof(*flows));
	epochs = memory_take((u64)sessions * sizeof(*epochs));
	if (!pool || !flows || !epochs)
		fail(1, "no memory for %u sessions", sessions);
	end_make(&ends[CLIENT], "client", client, server, left, right, pool);
	end_make(&ends[SERVER], "server", server, client, right, left, pool);
	for (u32 i = 0; i < sessions; i++)
		flow_make(&flows[i], i);
}

/* ---- frames ---- */

/* Both agents, until nothing moves any more. */
static void run(void)
{
	for (u32 n = 1; n;) {
		double start = bench_now();
		for (u32 one; (one = agent_turn(ends[CLIENT].agent));)
			n += one;
		clock_ns += bench_now() - start;
		n = 0;
		for (u32 one; (one = agent_turn(ends[SERVER].agent));)
			n += one;
	}
}

/* What one end's stack sends next in a session. */
static void send_next(u32 from, u32 i, u32 flags, const u8 *options)
{
	struct flow *f = &flows[i];
	struct wanted w = { .tuple = from == CLIENT ? f->local : reversed(&f->local), .flags = flags, .options = options, .id = (u16)i };
	u32 *mine = from == CLIENT ? &f->sent : &f->received;
	struct rte_mbuf *m = rte_pktmbuf_alloc(ends[from].shared->pool);

	if (!m)
		fail(1, "frames have been lost");
	w.seq = *mine;
	w.ack = flags & TCP_ACK ? from == CLIENT ? f->received : f->sent : 0;
	w.bytes = options ? AT_OPTIONS + 20 : flags & TCP_PSH ? FRAME : AT_OPTIONS;
	*mine += (options ? 1 : w.bytes - AT_OPTIONS);
	frame_write(m, &w);
	if (rte_ring_enqueue(ends[from].from_stack, m))
		fail(1, "a ring is full");
}

/* Payload bytes that have come to an end's stack, all of them right. */
static u64 receive(u32 to)
{
	struct rte_mbuf *m[BURST];
	u64 bytes = 0;

	for (u32 n; (n = rte_ring_dequeue_burst(ends[to].to_stack, (void **)m, BURST, 0));) {
		for (u32 i = 0; i < n; i++, frames_checked++) {
			struct five_tuple t = frame_tuple(m[i]);
			const struct wire_tcp *tcp = rte_pktmbuf_mtod_offset(m[i], const struct wire_tcp *, AT_TCP);
			u32 at = AT_TCP + (u32)(tcp->data_offset >> 4) * 4;
			wrong += !frame_right(m[i]) || t.dst != ends[to].address || t.src != ends[!to].address;
			bytes += m[i]->data_len > at && !(tcp->flags & TCP_SYN) ? m[i]->data_len - at : 0;
		}
		rte_pktmbuf_free_bulk(m, n);
	}
	return bytes;
}

static void establish(void)
{
	for (u32 first = 0; first < sessions; first += BATCH) {
		u32 n = RTE_MIN((u32)BATCH, sessions - first);
		static const u32 from[] = { CLIENT, SERVER, CLIENT, SERVER };
		static const u32 flags[] = { TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK | TCP_PSH, TCP_ACK | TCP_PSH };
		for (u32 step = 0; step < 4; step++) {
			for (u32 i = 0; i < n; i++)
				send_next(from[step], first + i, flags[step], step < 2 ? syn_options : 0);
			run();
			receive(CLIENT);
			receive(SERVER);
		}
	}
	for (u32 i = 0; i < 2; i++)
		if (ends[i].agent->sessions.table.count != sessions || wrong)
			fail(1, "%u of %u sessions, %u frames wrong", ends[i].agent->sessions.table.count, sessions, wrong);
}

/* A batch each way, by sessions at random: every byte arrives once. */
static void traffic(void)
{
	for (u32 from = CLIENT; from <= SERVER; from++) {
		for (u32 i = 0; i < BATCH; i++)
			send_next(from, (u32)rte_rand_max(sessions), TCP_ACK | TCP_PSH, 0);
		run();
		payload_lost += (u64)BATCH * PAYLOAD - receive(!from);
		receive(from);
	}
}

/* ---- the daemons ---- */

static u32 command(struct end *e, u32 kind, u64 nonce, u32 txid, u32 side)
{
	static u8 frame[COMMAND_FRAME + 8] ALIGNED;
	struct command c = { .kind = kind, .nonce = nonce, .txid = txid, .side = side, .ifindex = 1 };
	int more;

	((struct wire_ethernet *)frame)->type = be16_of(ETHERTYPE_IPV4);
	memcpy(frame + AT_IP, &c, sizeof(c));
	double start = bench_now();
	u32 refusal = agents_command(e->shared, frame, COMMAND_FRAME, &more);
	clock_ns += e == &ends[CLIENT] ? bench_now() - start : 0;
	return refusal;
}

static void begin(void)
{
	u32 i = (u32)rte_rand_max(sessions);
	const struct entry *e = (const void *)table_find(&ends[CLIENT].agent->egress, &flows[i].local);

	if (!e || attempts == MAX_ATTEMPTS)
		fail(1, "%s", e ? "reconfigurations do not end" : "a session is gone");
	struct attempt a = { .nonce = e->nonce, .txid = (u32)++epochs[i] << 16 | 1, .next = clock_ns };
	u32 refusal = command(&ends[CLIENT], COMMAND_RECONFIGURE, a.nonce, a.txid, 0);
	if (refusal == REFUSED_NOT)
		attempt[attempts++] = a;
	else if (refusal != REFUSED_BUSY && refusal != REFUSED_LOCKED) /* it is under way already */
		failed++;
}

static struct attempt *attempt_of(u64 nonce, u32 txid)
{
	for (u32 i = attempts; i-- > 0;)
		if (attempt[i].nonce == nonce && attempt[i].txid == txid)
			return &attempt[i];
	return 0;
}

/* What the client's daemon makes of an event. */
static void hear_client(const struct event *event)
{
	struct attempt *a = attempt_of(event->nonce, event->txid);

	if (!a)
		return;
	switch (event->kind) {
	case EVENT_NEW_PATH_READY:
	case EVENT_DRAINED: a->ready = 1, a->next = clock_ns; break;
	case EVENT_OLD_PATH_GONE: a->over = 1, a->next = clock_ns + SETTLE_NS, done++; break;
	case EVENT_SETTLED: a->settled = 1, a->next = clock_ns; break;
	case EVENT_LOCK_REFUSED:
	case EVENT_CANCELLED: *a = attempt[--attempts], failed++; break;
	}
}

static void hear(u32 at)
{
	struct agent *agent = ends[at].agent;

	for (; agent->heard != agent->told; agent->heard++) {
		const struct event *event = &agent->event[agent->heard % EVENT_ROOM];
		if (at == CLIENT)
			hear_client(event);
		else if (event->kind == EVENT_SETTLED)
			command(&ends[SERVER], COMMAND_FORGET_RECORD, event->nonce, event->txid, SIDE_LEFT);
	}
}

static void tick(void)
{
	hear(CLIENT);
	hear(SERVER);
	for (u32 i = attempts; i-- > 0;) {
		struct attempt *a = &attempt[i];
		if (a->next > clock_ns || !(a->ready || a->over))
			continue;
		a->next = clock_ns + RELEASE_AGAIN_NS;
		if (!a->over)
			command(&ends[CLIENT], COMMAND_RELEASE, a->nonce, a->txid, SIDE_RIGHT);
		else if (command(&ends[CLIENT], COMMAND_FORGET_RECORD, a->nonce, a->txid, SIDE_RIGHT) != REFUSED_BUSY && a->settled)
			*a = attempt[--attempts];
	}
}

/* ---- measurement ---- */

/* So many frames through the client's agent while `rate` sessions a second are reconfigured. */
static void measure(const char *subject, u64 frames, u32 rate)
{
	double start = clock_ns;
	u64 passed = 0, begun = 0;
	u32 done_before = done;

	for (; passed < frames; passed += 2 * BATCH) {
		traffic();
		for (u64 due = (u64)((clock_ns - start) * rate / 1e9); begun < due; begun++)
			begin();
		tick();
	}
	double seconds = (clock_ns - start) / 1e9;
	printf("%s,ns_per_packet,%.3f\n", subject, seconds * 1e9 / (double)passed);
	printf("%s,frames,%llu\n%s,reconfigured_per_second,%.1f\n", subject, passed, subject, (done - done_before) / seconds);
}

/* What is under way ends. */
static void finish(void)
{
	for (u32 i = 0; attempts && i < 2000; i++) {
		traffic();
		tick();
	}
}

int bench_reconfigure(u32 count, u64 frames, u32 rate)
{
	sessions = count;
	both_make();
	establish();
	payload_lost = 0;
	measure("calm", frames / 4, 0);
	measure("reconfiguring", frames / 4, rate);
	u64 before = bench_resident();
	measure("reconfiguring_on", frames / 2, rate);
	finish();
	printf("check,frames,%u\ncheck,checksums_bad,%u\ncheck,bytes_lost,%llu\n", frames_checked, wrong, payload_lost);
	printf("check,reconfigured,%u\ncheck,failed,%u\ncheck,unfinished,%u\n", done, failed, attempts);
	printf("check,grown_bytes,%lld\n", (long long)(bench_resident() - before));
	return 0;
}
