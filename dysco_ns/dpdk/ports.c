/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <glob.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include "ports.h"

enum { FRAMES = 8191, CACHED = 256, RING = 512, MAX_ARGUMENTS = 32 + 4 * MAX_PAIRS, PCI_COLONS = 2 };

/* What DPDK says while it starts: shown only if it fails. */
static char *said;
static size_t said_bytes;

static const char *last_word(void)
{
	char *end = said ? said + strlen(said) : 0;

	while (end && end > said && end[-1] == '\n')
		*--end = 0;
	char *line = end ? strrchr(said, '\n') : 0;
	return line ? line + 1 : said && *said ? said : "DPDK does not say why";
}

static int free_huge_pages(void)
{
	glob_t files;
	int pages = 0;

	if (glob("/sys/kernel/mm/hugepages/*/free_hugepages", 0, 0, &files))
		return 0;
	for (size_t i = 0; i < files.gl_pathc; i++) {
		FILE *f = fopen(files.gl_pathv[i], "r");
		int n = 0;
		if (f && fscanf(f, "%d", &n) == 1)
			pages += n;
		if (f)
			fclose(f);
	}
	globfree(&files);
	return pages;
}

static int is_pci(const char *device)
{
	int colons = 0;

	for (const char *c = device; *c && *c != ','; c++)
		colons += *c == ':';
	return colons == PCI_COLONS;
}

/* Complaints that DPDK words badly. */
static void device_check(const char *device)
{
	const char *iface = strstr(device, ",iface=");
	char name[IFNAMSIZ] = "";

	if (!iface || !strncmp(device, "net_tap", 7))
		return;
	sscanf(iface + 7, "%15[^,]", name);
	if (!if_nametoindex(name))
		fail(1, "%s: there is no interface %s here", device, name);
}

static void core_list(const struct options *o, char *to, size_t room)
{
	cpu_set_t ours;
	size_t n = 0;

	sched_getaffinity(0, sizeof(ours), &ours);
	if (o->core >= 0) {
		if (!CPU_ISSET(o->core, &ours))
			fail(1, "core %d: there is no such processor, or it is not ours to use (taskset -p shows which are)", o->core);
		snprintf(to, room, "0@%d", o->core);
		return;
	}
	n += (size_t)snprintf(to, room, "0@(");
	for (int i = 0; i < CPU_SETSIZE && n + 8 < room; i++)
		if (CPU_ISSET(i, &ours))
			n += (size_t)snprintf(to + n, room - n, "%s%d", to[n - 1] == '(' ? "" : ",", i);
	snprintf(to + n, room - n, ")");
}

static void add(char **list, int *n, const char *text) { list[(*n)++] = strdup(text); }

static void add_device(char **list, int *n, const char *device)
{
	device_check(device);
	add(list, n, is_pci(device) ? "-a" : "--vdev");
	add(list, n, device);
}

/* DPDK makes a directory for each prefix and leaves it. */
static void directory_remove(void) { rmdir(rte_eal_get_runtime_dir()); }

void environment_start(const struct options *o)
{
	char *list[MAX_ARGUMENTS], cores[1024], memory[16];
	int n = 0, pci = 0, huge = !o->no_huge && free_huge_pages();

	if (o->huge && !huge)
		fail(1, "no huge pages are free: echo 512 > /proc/sys/vm/nr_hugepages, or leave --huge away");
	core_list(o, cores, sizeof(cores));
	snprintf(memory, sizeof(memory), "%u", o->memory_mb);
	const char *fixed[] = { "dysco-dpdk", "--no-telemetry", "--file-prefix", o->prefix, "-m", memory, "--lcores", cores };
	for (u32 i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		add(list, &n, fixed[i]);
	add(list, &n, huge ? "--in-memory" : "--no-shconf"); /* no files are shared: there is no second process */
	if (!huge)
		add(list, &n, "--no-huge");
	for (u32 i = 0; i < o->pairs; i++) {
		pci |= is_pci(o->wire[i]) || is_pci(o->host[i]);
		add_device(list, &n, o->wire[i]);
		add_device(list, &n, o->host[i]);
	}
	if (!pci)
		add(list, &n, "--no-pci");
	FILE *stream = open_memstream(&said, &said_bytes);
	rte_openlog_stream(stream);
	int started = rte_eal_init(n, list);
	atexit(directory_remove);
	fflush(stream);
	if (started < 0)
		fail(1, "%s: %s%s", rte_strerror(rte_errno), last_word(), geteuid() ? " (run it as root)" : "");
}

int port_start(u16 port, struct rte_mempool *pool)
{
	struct rte_eth_conf conf = {};

	if (rte_eth_dev_configure(port, 1, 1, &conf) || rte_eth_rx_queue_setup(port, 0, RING, rte_eth_dev_socket_id(port), 0, pool) ||
	    rte_eth_tx_queue_setup(port, 0, RING, rte_eth_dev_socket_id(port), 0) || rte_eth_dev_start(port))
		return -1;
	rte_eth_promiscuous_enable(port);
	return 0;
}

static u16 port_named(const char *device, struct rte_mempool *pool)
{
	char name[RTE_ETH_NAME_MAX_LEN] = "";
	u16 port;

	sscanf(device, "%63[^,]", name);
	if (rte_eth_dev_get_port_by_name(name, &port))
		fail(1, "%s: %s: %s", device, is_pci(device) ? "no port there that DPDK has (bind it to vfio-pci, mlx5 to its own driver)" :
		     geteuid() ? "it cannot be made; run this as root" : "it cannot be made", last_word());
	if (port_start(port, pool))
		fail(1, "%s: the port does not start: %s", device, last_word());
	return port;
}

void ports_start(struct agent *a, const struct options *o)
{
	a->pool = rte_pktmbuf_pool_create("frames", FRAMES, CACHED, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!a->pool)
		fail(1, "no memory for frames: %s", rte_strerror(rte_errno));
	for (a->pairs = 0; a->pairs < o->pairs; a->pairs++) {
		struct pair *pair = &a->pair[a->pairs];
		struct rte_eth_dev_info info;
		struct rte_ether_addr mac;
		pair->wire.port = port_named(o->wire[a->pairs], a->pool);
		pair->host.port = port_named(o->host[a->pairs], a->pool);
		if (rte_eth_macaddr_get(pair->host.port, &mac) || rte_eth_dev_info_get(pair->host.port, &info))
			fail(1, "%s: does not say its address", o->host[a->pairs]);
		memcpy(pair->mac, mac.addr_bytes, sizeof(pair->mac));
		pair->ifindex = info.if_index ? info.if_index : a->pairs + 1;
	}
}

void ports_stop(struct agent *a)
{
	for (u32 i = 0; i < a->pairs; i++) {
		u16 ports[] = { a->pair[i].wire.port, a->pair[i].host.port };
		for (u32 j = 0; j < 2; j++) {
			rte_eth_promiscuous_disable(ports[j]);
			if (!rte_eth_dev_stop(ports[j]))
				rte_eth_dev_close(ports[j]);
		}
	}
	rte_eal_cleanup();
}
