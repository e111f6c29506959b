/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include <rte_dev.h>
#include <rte_errno.h>

#include "environment.h"
#include "ports.h"

enum { FRAMES = 8191, CACHED = 256, RING = 512, RSS_KEY = 52, RETA_GROUPS = 8 };

/* Frames are spread as core_of() says: its key, its table. */
static void rss_configure(struct rte_eth_conf *conf, const struct rte_eth_dev_info *info)
{
	static u8 key[RSS_KEY];
	u64 wanted = RTE_ETH_RSS_NONFRAG_IPV4_TCP & info->flow_type_rss_offloads;

	for (u32 i = 0; i < RSS_KEY; i += 2) {
		key[i] = RSS_WORD >> 8;
		key[i + 1] = RSS_WORD & 255;
	}
	if (!wanted)
		return;
	conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	conf->rx_adv_conf.rss_conf = (struct rte_eth_rss_conf){ key, RTE_MIN(info->hash_key_size ? info->hash_key_size : 40, RSS_KEY), wanted };
}

static void rss_table(u16 port, const struct rte_eth_dev_info *info, u16 queues)
{
	struct rte_eth_rss_reta_entry64 reta[RETA_GROUPS] = {};
	u32 places = RTE_MIN((u32)info->reta_size, RETA_GROUPS * RTE_ETH_RETA_GROUP_SIZE);

	for (u32 i = 0; i < places; i++) {
		reta[i / RTE_ETH_RETA_GROUP_SIZE].mask |= 1ull << i % RTE_ETH_RETA_GROUP_SIZE;
		reta[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = (u16)(i % SPREAD % queues);
	}
	if (places)
		rte_eth_dev_rss_reta_update(port, reta, (u16)places); /* where it cannot, cores hand frames on */
}

int port_start(u16 port, struct rte_mempool *pool, u32 cores, u16 *rx, u16 *tx)
{
	struct rte_eth_conf conf = {};
	struct rte_eth_dev_info info;
	int socket = rte_eth_dev_socket_id(port);

	if (rte_eth_dev_info_get(port, &info))
		return -1;
	*rx = (u16)RTE_MIN(cores, (u32)info.max_rx_queues);
	*tx = (u16)RTE_MIN(cores, (u32)info.max_tx_queues);
	if (*rx > 1)
		rss_configure(&conf, &info);
	if (rte_eth_dev_configure(port, *rx, *tx, &conf))
		return -1;
	for (u16 i = 0; i < *rx; i++)
		if (rte_eth_rx_queue_setup(port, i, RING, (u32)socket, 0, pool))
			return -1;
	for (u16 i = 0; i < *tx; i++)
		if (rte_eth_tx_queue_setup(port, i, RING, (u32)socket, 0))
			return -1;
	if (rte_eth_dev_start(port))
		return -1;
	if (*rx > 1)
		rss_table(port, &info, *rx);
	rte_eth_promiscuous_enable(port);
	return 0;
}

static int wrong(char *why, const char *device, const char *what)
{
	snprintf(why, WHY_BYTES, "%s: %s", device, what);
	return -1;
}

/* Finds or makes a device, and starts it. */
static int port_open(struct shared *s, const char *device, u16 *port, u16 queues[2], char *why)
{
	char name[RTE_ETH_NAME_MAX_LEN] = "";

	sscanf(device, "%63[^,]", name);
	if (device_complaint(device, why, WHY_BYTES))
		return -1;
	if (rte_eth_dev_get_port_by_name(name, port) && (rte_dev_probe(device) || rte_eth_dev_get_port_by_name(name, port)))
		return wrong(why, device, is_pci(device) ? "no port there that DPDK has (bind it to vfio-pci, mlx5 to its own driver)" :
					  geteuid()      ? "it cannot be made; run this as root" : environment_word());
	if (port_start(*port, s->pool, s->spread.cores, &queues[0], &queues[1]))
		return wrong(why, device, environment_word());
	return 0;
}

static void port_close(u16 port)
{
	rte_eth_promiscuous_disable(port);
	if (!rte_eth_dev_stop(port))
		rte_eth_dev_close(port);
}

/* How one core sends by a port. */
static struct queue queue_of(struct shared *s, u16 port, u16 queues, u32 core)
{
	return (struct queue){ .port = port, .number = (u16)(core % queues), .lock = queues < s->spread.cores ? &s->sending[port] : 0 };
}

/* The queue that a core polls: its own; a port with too few has different ones at work. */
static u16 polled(u16 port, u16 queues, u32 core, u32 cores)
{
	u32 at = (core + cores - (queues == cores ? 0 : port % cores)) % cores;

	return at < queues ? (u16)at : NOT_POLLED;
}

int pair_add(struct shared *s, const char *wire, const char *host, char *why)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	u16 port[2], queues[2][2];
	u32 cores = s->spread.cores;

	if (s->pairs == MAX_PAIRS)
		return wrong(why, wire, "there are no more pairs of ports");
	if (port_open(s, wire, &port[0], queues[0], why))
		return -1;
	if (port_open(s, host, &port[1], queues[1], why)) {
		port_close(port[0]);
		return -1;
	}
	if (rte_eth_macaddr_get(port[1], &mac) || rte_eth_dev_info_get(port[1], &info)) {
		port_close(port[0]);
		port_close(port[1]);
		return wrong(why, host, "does not say its address");
	}
	for (u32 core = 0; core < cores; core++) {
		struct agent *a = s->agent[core];
		struct pair *pair = &a->pair[s->pairs];
		pair->ifindex = info.if_index ? info.if_index : s->pairs + 1;
		memcpy(pair->mac, mac.addr_bytes, sizeof(pair->mac));
		pair->wire = queue_of(s, port[0], queues[0][1], core);
		pair->host = queue_of(s, port[1], queues[1][1], core);
		pair->poll_wire = polled(port[0], queues[0][0], core, cores);
		pair->poll_host = polled(port[1], queues[1][0], core, cores);
		a->pairs = s->pairs + 1;
	}
	s->device[s->pairs][0] = strdup(wire);
	s->device[s->pairs][1] = strdup(host);
	s->pairs++;
	return 0;
}

void ports_start(struct shared *s, const struct options *o)
{
	char why[WHY_BYTES];

	s->pool = rte_pktmbuf_pool_create("frames", (FRAMES + 1) * o->cores - 1, CACHED, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!s->pool)
		fail(1, "no memory for frames: %s", rte_strerror(rte_errno));
	for (u32 i = 0; i < o->pairs; i++)
		if (pair_add(s, o->wire[i], o->host[i], why))
			fail(1, "%s", why);
}

void ports_stop(struct shared *s)
{
	for (u32 i = 0; i < s->pairs; i++) {
		port_close(s->agent[0]->pair[i].wire.port);
		port_close(s->agent[0]->pair[i].host.port);
	}
	environment_end();
}
