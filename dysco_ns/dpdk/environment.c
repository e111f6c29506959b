/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <glob.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include "environment.h"

enum { MAX_ARGUMENTS = 32 + 4 * MAX_PAIRS, PCI_COLONS = 2, CORES_BYTES = 4096 };

/* What DPDK says while it starts: shown only if it fails. */
static char *said;
static size_t said_bytes;
static FILE *listener;

const char *environment_word(void)
{
	if (listener)
		fflush(listener);
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

int is_pci(const char *device)
{
	int colons = 0;

	for (const char *c = device; *c && *c != ','; c++)
		colons += *c == ':';
	return colons == PCI_COLONS;
}

int device_complaint(const char *device, char *why, size_t room)
{
	const char *iface = strstr(device, ",iface=");
	char name[IFNAMSIZ] = "";

	if (!iface || !strncmp(device, "net_tap", 7) || !strncmp(device, "net_vhost", 9))
		return 0;
	sscanf(iface + 7, "%15[^,]", name);
	if (if_nametoindex(name))
		return 0;
	snprintf(why, room, "%s: there is no interface %s here", device, name);
	return 1;
}

/* "0@(0,1),1@(0,1)": a thread of DPDK for each core, on its processor, or on whichever of ours the system gives. */
static void core_list(const struct options *o, char *to)
{
	cpu_set_t ours;
	char any[1024] = "";
	size_t n = 0;

	sched_getaffinity(0, sizeof(ours), &ours);
	for (int i = 0; i < CPU_SETSIZE && n + 8 < sizeof(any); i++)
		if (CPU_ISSET(i, &ours))
			n += (size_t)snprintf(any + n, sizeof(any) - n, "%s%d", n ? "," : "", i);
	n = 0;
	for (u32 i = 0; i < o->cores && n < CORES_BYTES; i++) {
		if (o->processor[i] >= 0 && !CPU_ISSET(o->processor[i], &ours))
			fail(1, "core %d: there is no such processor, or it is not ours to use (we have %s)", o->processor[i], any);
		if (o->processor[i] >= 0)
			n += (size_t)snprintf(to + n, CORES_BYTES - n, "%s%u@%d", i ? "," : "", i, o->processor[i]);
		else
			n += (size_t)snprintf(to + n, CORES_BYTES - n, "%s%u@(%s)", i ? "," : "", i, any);
	}
	if (n >= CORES_BYTES)
		fail(1, "too many processors to list: say which with --core");
}

static void add(char **list, int *n, const char *text) { list[(*n)++] = strdup(text); }

static void add_device(char **list, int *n, const char *device)
{
	char why[256];

	if (device_complaint(device, why, sizeof(why)))
		fail(1, "%s", why);
	add(list, n, is_pci(device) ? "-a" : "--vdev");
	add(list, n, device);
}

/* DPDK makes a directory for each prefix and leaves it. */
static void directory_remove(void) { rmdir(rte_eal_get_runtime_dir()); }

void environment_start(const struct options *o)
{
	char *list[MAX_ARGUMENTS], cores[CORES_BYTES], memory[16];
	int n = 0, pci = 0, huge = !o->no_huge && free_huge_pages();

	if (o->huge && !huge)
		fail(1, "no huge pages are free: echo 512 > /proc/sys/vm/nr_hugepages, or leave --huge away");
	core_list(o, cores);
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
	listener = open_memstream(&said, &said_bytes);
	rte_openlog_stream(listener);
	int started = rte_eal_init(n, list);
	atexit(directory_remove);
	if (started < 0)
		fail(1, "%s: %s%s", rte_strerror(rte_errno), environment_word(), geteuid() ? " (run it as root)" : "");
}

void environment_end(void) { rte_eal_cleanup(); }
