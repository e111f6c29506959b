/* SPDX-License-Identifier: Apache-2.0 */
/* DPDK's environment and the two ports. */
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>

#include "memory.h"
#include "traffic.h"

enum { FRAMES_OF_A_WORKER = 8192, CACHE = 256, RING = 512, MOST_WORDS = 24, LEAST_ENTRIES = 64, SESSIONS_OF_A_MB = 4096 };

void fail(int status, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("dysco-dpdk-traffic: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(status);
}

static int is_pci(const char *device) { return strchr(device, ':') == device + 4; }

static void environment_start(const char *near, const char *far, u32 memory_mb)
{
	char memory[16], prefix[32], cores[16 + CPU_SETSIZE * 5] = "0@(";
	char *words[MOST_WORDS];
	cpu_set_t ours;
	int n = 0;

	snprintf(memory, sizeof(memory), "%u", memory_mb);
	snprintf(prefix, sizeof(prefix), "traffic-%d", (int)getpid());
	sched_getaffinity(0, sizeof(ours), &ours);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &ours))
			sprintf(cores + strlen(cores), "%s%d", strlen(cores) > 3 ? "," : "", i);
	strcat(cores, ")");
	const char *fixed[] = { "traffic", "--no-telemetry", "--no-shconf", "--no-huge", "-m", memory, "--file-prefix", prefix, "--lcores",
				cores, is_pci(near) ? "-a" : "--vdev", near, is_pci(far) ? "-a" : "--vdev", far };
	for (u32 i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		words[n++] = strdup(fixed[i]);
	if (!is_pci(near) && !is_pci(far))
		words[n++] = strdup("--no-pci");
	rte_log_set_global_level(RTE_LOG_ERR);
	if (rte_eal_init(n, words) < 0)
		fail(1, "DPDK does not start: %s", rte_strerror(rte_errno));
}

static u16 port_start(const char *device)
{
	struct rte_eth_conf conf = {};
	struct rte_eth_dev_info info;
	char name[RTE_ETH_NAME_MAX_LEN] = "";
	u16 port;

	sscanf(device, "%63[^,]", name);
	if (rte_eth_dev_get_port_by_name(name, &port) || rte_eth_dev_info_get(port, &info))
		fail(1, "%s: there is no such port", device);
	if (all.workers > RTE_MIN(info.max_rx_queues, info.max_tx_queues))
		fail(1, "%s: %u queues and no more", device, RTE_MIN(info.max_rx_queues, info.max_tx_queues));
	conf.rx_adv_conf.rss_conf.rss_hf = RTE_ETH_RSS_NONFRAG_IPV4_TCP & info.flow_type_rss_offloads;
	conf.rxmode.mq_mode = conf.rx_adv_conf.rss_conf.rss_hf ? RTE_ETH_MQ_RX_RSS : RTE_ETH_MQ_RX_NONE;
	int wrong = rte_eth_dev_configure(port, (u16)all.workers, (u16)all.workers, &conf);
	for (u16 queue = 0; !wrong && queue < all.workers; queue++)
		wrong = rte_eth_rx_queue_setup(port, queue, RING, SOCKET_ID_ANY, 0, all.pool) ||
			rte_eth_tx_queue_setup(port, queue, RING, SOCKET_ID_ANY, 0);
	if (wrong || rte_eth_dev_start(port))
		fail(1, "%s: the port does not start", device);
	rte_eth_promiscuous_enable(port);
	return port;
}

void devices_start(const char *near, const char *far, u32 memory_mb, u32 sessions)
{
	struct rte_hash_parameters index = { .name = "by ports", .entries = 2 * sessions + LEAST_ENTRIES, .key_len = sizeof(u32) };

	environment_start(near, far, memory_mb + sessions / SESSIONS_OF_A_MB);
	all.pool = rte_pktmbuf_pool_create("frames", FRAMES_OF_A_WORKER * all.workers - 1, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	all.sessions = sessions;
	all.session = memory_take((u64)sessions * sizeof(*all.session) + 1);
	all.by_ports = rte_hash_create(&index);
	if (!all.pool || !all.session || !all.by_ports)
		fail(1, "no memory for %u sessions and the frames of %u workers", sessions, all.workers);
	all.port[NEAR] = port_start(near);
	all.port[FAR] = port_start(far);
}

void devices_stop(void)
{
	for (enum place at = NEAR; at <= FAR; at++)
		if (!rte_eth_dev_stop(all.port[at]))
			rte_eth_dev_close(all.port[at]);
	rte_eal_cleanup();
}
