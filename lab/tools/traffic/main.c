/* SPDX-License-Identifier: Apache-2.0 */
/* dysco-dpdk-traffic: TCP sessions by the ten thousand through what lies between two ports, checked frame by frame; or, with
 * --forward, the plain forwarder that an agent is compared with.  Prints lines "subject,quantity,value". */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "traffic.h"

enum { LEAST_SIZE = 64, MOST_SIZE = 1518, DRAIN_MS = 100, MEMORY_MB = 96 };

struct traffic all = { .workers = 1 };

static const char help[] =
	"usage: dysco-dpdk-traffic --near DEVICE --far DEVICE [options] SIZE...     frames of so many bytes, FCS included\n"
	"       dysco-dpdk-traffic --near DEVICE --far DEVICE --forward\n"
	"\n"
	"  DEVICE         as dysco-dpdk takes it: net_af_packet0,iface=eth0  net_vhost0,iface=/tmp/near.sock  0000:03:00.0\n"
	"  --sessions N   (default 60000, at most 1048576)    --seconds S    for each size (default 2)\n"
	"  --workers N    threads, each with a queue of both ports (default 1, at most 16)\n"
	"  --rate N       frames per second, of all together (default: what the ports take)\n"
	"  --hold         the first session begins when a line has come on standard input: the other ends are up\n"
	"  --forward      frames of one port leave by the other, their Ethernet addresses swapped, until SIGTERM\n";

static void end(int number)
{
	(void)number;
	all.receiving = 0;
}

/* ---- forwarding ---- */

static void swap_addresses(struct rte_mbuf *m)
{
	struct wire_ethernet *ethernet = rte_pktmbuf_mtod(m, struct wire_ethernet *), before = *ethernet;

	memcpy(ethernet->destination, before.source, sizeof(before.source));
	memcpy(ethernet->source, before.destination, sizeof(before.destination));
}

static void *forward_run(void *worker)
{
	u16 queue = (u16)((struct worker *)worker)->number;
	struct rte_mbuf *frames[TRAFFIC_BURST];

	if (queue)
		rte_thread_register();
	while (all.receiving)
		for (enum place at = NEAR; at <= FAR; at++) {
			u16 n = rte_eth_rx_burst(all.port[at], queue, frames, TRAFFIC_BURST);
			for (u16 i = 0; i < n; i++)
				rte_prefetch0(rte_pktmbuf_mtod(frames[i], void *));
			for (u16 i = 0; i < n; i++)
				swap_addresses(frames[i]);
			u16 sent = rte_eth_tx_burst(all.port[!at], queue, frames, n);
			rte_pktmbuf_free_bulk(frames + sent, (u32)(n - sent));
		}
	if (queue)
		rte_thread_unregister();
	return 0;
}

/* ---- traffic ---- */

static u64 received(const struct worker *workers)
{
	u64 sum = 0;

	for (u32 i = 0; i < all.workers; i++)
		for (enum place at = NEAR; at <= FAR; at++)
			sum += __atomic_load_n(&workers[i].tally.received[at], __ATOMIC_RELAXED);
	return sum;
}

/* Until nothing has come for a while. */
static void drain(const struct worker *workers)
{
	for (u64 before = ~0ull, now; (now = received(workers)) != before; before = now)
		usleep(DRAIN_MS * 1000);
}

static void workers_run(struct worker *workers, void *(*body)(void *), double seconds)
{
	pthread_t thread[MOST_WORKERS];

	all.receiving = all.sending = 1;
	for (u32 i = 0; i < all.workers; i++)
		if (pthread_create(&thread[i], 0, body, &workers[i]))
			fail(1, "no more threads");
	for (double until = now_s() + seconds; all.receiving && (seconds <= 0 || now_s() < until);)
		usleep(1000);
	all.sending = 0;
	drain(workers);
	all.receiving = 0;
	for (u32 i = 0; i < all.workers; i++)
		pthread_join(thread[i], 0);
}

static void print(u32 size, const struct worker *workers, double seconds)
{
	struct tally sum = {};

	for (u32 i = 0; i < all.workers; i++) {
		const struct tally *t = &workers[i].tally;
		for (enum place at = NEAR; at <= FAR; at++) {
			sum.sent[at] += t->sent[at];
			sum.received[at] += t->received[at];
		}
		sum.missing += t->missing;
		sum.late += t->late;
		sum.bad_checksums += t->bad_checksums;
		sum.bad_acks += t->bad_acks;
		sum.foreign += t->foreign;
		sum.stale += t->stale;
	}
	const struct { const char *quantity; u64 value; } found[] = {
		{ "sent_out", sum.sent[NEAR] },        { "sent_in", sum.sent[FAR] },
		{ "received_out", sum.received[FAR] }, { "received_in", sum.received[NEAR] },
		{ "missing", sum.missing },            { "late", sum.late },
		{ "checksums_bad", sum.bad_checksums }, { "acks_bad", sum.bad_acks },
		{ "foreign", sum.foreign },            { "stale", sum.stale },
	};
	for (u32 i = 0; i < sizeof(found) / sizeof(*found); i++)
		printf("%u,%s,%llu\n", size, found[i].quantity, (unsigned long long)found[i].value);
	printf("%u,pps,%.0f\n", size, (double)(sum.received[NEAR] + sum.received[FAR]) / seconds);
	fflush(stdout);
}

/* One size after the other.  What got lost of one is not missed in the next. */
static void traffic_run(u32 size, double seconds, double rate)
{
	struct worker workers[MOST_WORKERS] = {};

	for (u32 i = 0; i < all.workers; i++)
		workers[i] = (struct worker){ .number = i, .size = size, .rate = rate / all.workers };
	workers_run(workers, worker_run, seconds);
	print(size, workers, seconds);
	for (u32 i = 0; i < all.sessions; i++)
		for (enum place at = NEAR; at <= FAR; at++)
			all.session[i].heard[!at] = all.session[i].sent[at];
}

/* ---- command line ---- */

static double number(const char *name, const char *text, double least, double most)
{
	char *rest;
	double value = strtod(text, &rest);

	if (!*text || *rest || !(value >= least && value <= most))
		fail(2, "%s %s: a number from %g to %g", name, text, least, most);
	return value;
}

static const struct option known[] = { { "near", 1, 0, 'n' },    { "far", 1, 0, 'f' },  { "sessions", 1, 0, 's' }, { "seconds", 1, 0, 't' },
				       { "workers", 1, 0, 'w' }, { "rate", 1, 0, 'r' }, { "hold", 0, 0, 'H' },     { "forward", 0, 0, 'F' },
				       { "help", 0, 0, 'h' },    {} };

int main(int argc, char **argv)
{
	const char *near = 0, *far = 0;
	double seconds = 2, rate = 0;
	u32 sessions = 60000;
	int forward = 0, hold = 0;

	for (int c; (c = getopt_long(argc, argv, "h", known, 0)) != -1;) {
		switch (c) {
		case 'n': near = optarg; break;
		case 'f': far = optarg; break;
		case 's': sessions = (u32)number("--sessions", optarg, 1, MOST_SESSIONS); break;
		case 't': seconds = number("--seconds", optarg, 0.1, 3600); break;
		case 'w': all.workers = (u32)number("--workers", optarg, 1, MOST_WORKERS); break;
		case 'r': rate = number("--rate", optarg, 1, 1e9); break;
		case 'H': hold = 1; break;
		case 'F': forward = 1; break;
		case 'h': fputs(help, stdout); return 0;
		default: fputs(help, stderr); return 2;
		}
	}
	if (!near || !far || forward == (optind < argc))
		fail(2, "--near and --far, and either sizes or --forward; --help explains them");
	for (int i = optind; i < argc; i++)
		number("size", argv[i], LEAST_SIZE, MOST_SIZE);
	devices_start(near, far, MEMORY_MB + 24 * all.workers, forward ? 0 : sessions);
	puts("ready");
	fflush(stdout);
	if (forward) {
		struct worker workers[MOST_WORKERS] = {};
		for (u32 i = 0; i < all.workers; i++)
			workers[i].number = i;
		signal(SIGTERM, end);
		signal(SIGINT, end);
		workers_run(workers, forward_run, 0);
	} else {
		if (hold && getchar() == EOF)
			fail(1, "standard input has ended before the first session");
		double took = sessions_establish();
		printf("setup,sessions,%u\nsetup,setup_per_second,%.0f\n", sessions, sessions / took);
		for (int i = optind; i < argc; i++)
			traffic_run((u32)atoi(argv[i]), seconds, rate);
	}
	devices_stop();
	return 0;
}
