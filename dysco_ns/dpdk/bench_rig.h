/* SPDX-License-Identifier: Apache-2.0 */
/* What both benchmarks stand on: ports whose frames stay in memory, agents as a daemon would configure them, time. */
#ifndef DYSCO_DPDK_BENCH_RIG_H
#define DYSCO_DPDK_BENCH_RIG_H
#include <stdio.h>
#include <time.h>

#include <rte_eth_ring.h>

#include "bench_flows.h"
#include "environment.h"
#include "ports.h"
#include "worker.h"

enum { BATCH = 2048, PORTS_FIRST = 20000, PORTS_COUNT = 22000 /* as many above for control */ };

/* bench_reconfigure.c */
int bench_reconfigure(u32 sessions, u64 frames, u32 rate);

INLINE struct rte_ring *bench_ring(const char *name, u32 number)
{
	char full[RTE_RING_NAMESIZE];

	snprintf(full, sizeof(full), "%s-%u", name, number);
	struct rte_ring *r = rte_ring_create(full, 4 * BATCH, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	if (!r)
		fail(1, "no memory for ring %s", full);
	return r;
}

/* A port that takes from some rings and gives to others, one of each for every core. */
INLINE u16 bench_port(const char *name, struct shared *s, struct rte_ring **from, struct rte_ring **to)
{
	u16 rx, tx;
	int port = rte_eth_from_rings(name, from, s->spread.cores, to, s->spread.cores, SOCKET_ID_ANY);

	if (port < 0 || port_start((u16)port, s->pool, s->spread.cores, &rx, &tx))
		fail(1, "port %s does not start", name);
	return (u16)port;
}

/* What the daemon would write: one interface, a policy that sends everything by `box` (0: by nobody), the next hop `to`. */
INLINE void bench_configure(struct shared *s, be32 own, be32 box, be32 to, u32 sign)
{
	struct hop_key key = { to, 0 };
	u32 index = DAEMON_NEXT_HOPS;

	close(s->routes.fd);
	s->routes.fd = -1;
	s->config = (struct config){ .layout_version = LAYOUT_VERSION, .first_port = PORTS_FIRST, .ports = PORTS_COUNT, .policy_slots = 1,
				     .interface_count = 1, .domains = 1, .interfaces = { { 1, own } } };
	s->config.domain[0].sign = sign;
	s->key[0].valid = sign;
	s->policy[0] = (struct policy){ .id = 1, .insns = 1, .chain_length = box != 0, .chain = { box }, .filter = { { 0x06, 0, 0, 1 } } };
	s->hop[index] = (struct next_hop){ .address = to, .ifindex = 1, .destination = { 2, 0, 0, 0, 1, 2 },
					   .source = { 2, 0, 0, 0, 0, 1 }, .resolved = 1, .from = own };
	table_put(&s->hop_index, &key, &index);
}

/* Processor time of this thread, ns. */
INLINE double bench_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Memory of this process, bytes. */
INLINE u64 bench_resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	u64 pages = 0;

	if (!f || fscanf(f, "%*u %llu", &pages) != 1)
		fail(1, "/proc/self/statm cannot be read");
	fclose(f);
	return pages * (u64)sysconf(_SC_PAGESIZE);
}

#endif
